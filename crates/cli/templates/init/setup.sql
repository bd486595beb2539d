CREATE TABLE IF NOT EXISTS sales (
    day      TEXT    NOT NULL,
    region   TEXT    NOT NULL,
    quantity INTEGER NOT NULL,
    price    NUMERIC NOT NULL
);
