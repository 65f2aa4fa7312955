-- The default application schema (postgresql). Times are naive UTC.

CREATE TABLE photos (
    id SERIAL NOT NULL,
    s3_key VARCHAR(255),
    PRIMARY KEY (id)
);

CREATE TABLE recommendation_records (
    id SERIAL NOT NULL,
    recommendation_id VARCHAR(64),
    conditions_analyzed JSON,
    rules_applied JSON,
    PRIMARY KEY (id),
    UNIQUE (recommendation_id)
);

CREATE TABLE users (
    id SERIAL NOT NULL,
    PRIMARY KEY (id)
);

CREATE TABLE analyses (
    id SERIAL NOT NULL,
    photo_id INTEGER,
    PRIMARY KEY (id),
    FOREIGN KEY(photo_id) REFERENCES photos (id)
);

CREATE TABLE profiles (
    id SERIAL NOT NULL,
    user_id INTEGER,
    age INTEGER,
    PRIMARY KEY (id),
    FOREIGN KEY(user_id) REFERENCES users (id)
);

CREATE INDEX ix_profiles_user_id ON profiles (user_id);

CREATE TABLE recommendation_feedbacks (
    id SERIAL NOT NULL,
    user_id INTEGER,
    analysis_id INTEGER,
    recommendation_id INTEGER,
    helpful_rating INTEGER,
    product_satisfaction INTEGER,
    routine_completion_pct INTEGER,
    would_recommend BOOLEAN,
    timeframe VARCHAR(32),
    feedback_text TEXT,
    improvement_suggestions TEXT,
    adverse_reactions JSON,
    product_ratings JSON,
    created_at TIMESTAMP WITHOUT TIME ZONE,
    updated_at TIMESTAMP WITHOUT TIME ZONE,
    PRIMARY KEY (id),
    FOREIGN KEY(recommendation_id) REFERENCES recommendation_records (id)
);

CREATE INDEX ix_recommendation_feedbacks_created_at ON recommendation_feedbacks (created_at);
