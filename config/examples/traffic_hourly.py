"""Loads JSON into a table: a PySpark program that prints a request instead of running.

    python traffic_hourly.py | sparkferry submit - --wait
"""

import argparse

from dataframe_to_plan import Ferry
from pyspark.sql import functions as F

LAKE = "abfss://CONTAINER@ACCOUNT.dfs.core.windows.net"

options = argparse.ArgumentParser()
options.add_argument("--id", default="traffic-hourly-2026-11-21")
options.add_argument("--connection", default="lake")
options.add_argument("--input", default=f"{LAKE}/stage/traffic_hourly.json")
options.add_argument("--table", default="cat.bronze.traffic_hourly")
options.add_argument("--using", default="iceberg PARTITIONED BY (years(date))")
options = options.parse_args()

ferry = Ferry()
ferry.sql(
    f"CREATE TABLE IF NOT EXISTS {options.table} (plaza_id string, date date, hour string, "
    f"direction string, vehicles_e_zpass int, vehicles_vtoll int) USING {options.using}"
)
traffic = ferry.spark.read.json(options.input)
traffic = traffic.select(
    "plaza_id",
    F.to_date("date").alias("date"),
    "hour",
    "direction",
    F.col("vehicles_e_zpass").cast("int"),
    F.col("vehicles_vtoll").cast("int"),
)
traffic.write.mode("append").saveAsTable(options.table)
print(
    ferry.request(
        id=options.id,
        connection=options.connection,
        conf={
            "spark.sql.catalog.cat": "org.apache.iceberg.spark.SparkCatalog",
            "spark.sql.catalog.cat.type": "hadoop",
            "spark.sql.catalog.cat.warehouse": f"{LAKE}/warehouse",
        },
    )
)
