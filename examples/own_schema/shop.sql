-- A shop that surveys its customers after every delivery; its schema differs from the default tables.
-- sqlite3 shop.db < shop.sql

CREATE TABLE customers (customer_no TEXT PRIMARY KEY, born_on TEXT, country TEXT, allows_research INTEGER);
CREATE TABLE advice (advice_no TEXT PRIMARY KEY, skin_topics TEXT, based_on TEXT);
CREATE TABLE surveys (
    survey_no INTEGER PRIMARY KEY,
    customer_no TEXT REFERENCES customers (customer_no),
    scan_no TEXT,
    advice_no TEXT REFERENCES advice (advice_no),
    channel TEXT,
    stars INTEGER,
    product_stars INTEGER,
    done_percent INTEGER,
    recommends TEXT,
    weeks INTEGER,
    sent_at TEXT
);

INSERT INTO customers VALUES
    ('C-1001', '1990-04-12', 'DE', 1),
    ('C-1002', '1971-11-30', 'FR', 1),
    ('C-1003', '2001-01-05', 'DE', 0);
INSERT INTO advice VALUES
    ('ADV-1', '["acne","oily_skin"]', '["r001"]'),
    ('ADV-2', '["dryness"]', '["r002","r007"]');
INSERT INTO surveys VALUES
    (1, 'C-1001', 'S-77', 'ADV-1', 'mail', 5, 4, 80, 'yes', 2, '2025-10-20T09:30:00Z'),
    (2, 'C-1002', 'S-78', 'ADV-2', 'app', 3, NULL, NULL, 'no', 4, '2025-10-21T18:05:00Z'),
    (3, 'C-1003', 'S-79', 'ADV-1', 'app', 4, 4, 60, NULL, 1, '2025-10-22T07:45:00Z'),
    (4, 'C-1002', 'S-80', 'ADV-1', 'mail', NULL, NULL, NULL, NULL, NULL, '2025-10-23T12:00:00Z');
