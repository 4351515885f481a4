-- How many topics there are of each kind, so that nobody has to read all settings to know.
CREATE TABLE kinds (
  type TEXT NOT NULL,
  durability TEXT NOT NULL,
  topics INTEGER NOT NULL,
  PRIMARY KEY (type, durability)
) STRICT, WITHOUT ROWID;

INSERT INTO kinds
SELECT ifnull(config ->> 'type', 'log') AS type, ifnull(config ->> 'durability', 'disk') AS durability, count(*)
FROM (SELECT iif(json_valid(config), config, '{}') AS config FROM topics)
GROUP BY type, durability;
