-- The default application schema (mysql). Times are naive UTC.

CREATE TABLE photos (
    id INTEGER NOT NULL AUTO_INCREMENT,
    s3_key VARCHAR(255),
    PRIMARY KEY (id)
);

CREATE TABLE recommendation_records (
    id INTEGER NOT NULL AUTO_INCREMENT,
    recommendation_id VARCHAR(64),
    conditions_analyzed JSON,
    rules_applied JSON,
    PRIMARY KEY (id),
    UNIQUE (recommendation_id)
);

CREATE TABLE users (
    id INTEGER NOT NULL AUTO_INCREMENT,
    PRIMARY KEY (id)
);

CREATE TABLE analyses (
    id INTEGER NOT NULL AUTO_INCREMENT,
    photo_id INTEGER,
    PRIMARY KEY (id),
    FOREIGN KEY(photo_id) REFERENCES photos (id)
);

CREATE TABLE profiles (
    id INTEGER NOT NULL AUTO_INCREMENT,
    user_id INTEGER,
    age INTEGER,
    PRIMARY KEY (id),
    FOREIGN KEY(user_id) REFERENCES users (id)
);

CREATE INDEX ix_profiles_user_id ON profiles (user_id);

CREATE TABLE recommendation_feedbacks (
    id INTEGER NOT NULL AUTO_INCREMENT,
    user_id INTEGER,
    analysis_id INTEGER,
    recommendation_id INTEGER,
    helpful_rating INTEGER,
    product_satisfaction INTEGER,
    routine_completion_pct INTEGER,
    would_recommend BOOL,
    timeframe VARCHAR(32),
    feedback_text TEXT,
    improvement_suggestions TEXT,
    adverse_reactions JSON,
    product_ratings JSON,
    created_at DATETIME(6),
    updated_at DATETIME(6),
    PRIMARY KEY (id),
    FOREIGN KEY(recommendation_id) REFERENCES recommendation_records (id)
);

CREATE INDEX ix_recommendation_feedbacks_created_at ON recommendation_feedbacks (created_at);
