"""What users hand in to train on, read record by record: texts, JSON lines, JSON, Parquet, and data sets of the hub."""
