DROP TABLE IF EXISTS working_deliveries;
