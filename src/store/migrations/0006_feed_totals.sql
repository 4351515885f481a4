-- How many subscriptions are in force, so that nobody has to count them.
CREATE TABLE feed_totals (active_subscriptions INTEGER NOT NULL) STRICT;
INSERT INTO feed_totals SELECT count(*) FROM feed_subscriptions WHERE active = 1;
