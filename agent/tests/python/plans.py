"""Prints requests made of PySpark programs, one a line. Usage: plans.py EXAMPLES FOLDER

EXAMPLES holds dataframe_to_plan.py, FOLDER takes data.
"""

import json
import sys
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])

from dataframe_to_plan import Ferry
from pyspark.sql import functions as F
from pyspark.sql.types import LongType

FOLDER = Path(sys.argv[2])


def show(ferry, **fields):
    print(json.dumps(json.loads(ferry.request(**fields))))


def writes_and_appends_parquet():
    ferry, path = Ferry(), str(FOLDER / "numbers.parquet")
    ferry.spark.range(3).write.mode("overwrite").parquet(path)
    ferry.spark.range(3, 5).write.mode("append").parquet(path)
    ferry.rows(ferry.spark.read.parquet(path).orderBy("id"))
    show(ferry, id="plan-parquet")


def calls_a_function_of_an_artifact():
    module = FOLDER / "doubling.py"
    module.write_text("def twice(n):\n    return 2 * n\n")
    ferry = Ferry()
    ferry.artifact(module)

    def twice(n):
        import doubling

        return doubling.twice(n)

    ferry.rows(ferry.spark.range(3).select(F.udf(twice, LongType(), useArrow=False)("id").alias("n")))
    show(ferry, id="plan-udf")


def fails_in_python():
    ferry = Ferry()

    def fail(n):
        raise ValueError(f"no such plaza: {n}")

    ferry.rows(ferry.spark.range(1).select(F.udf(fail, LongType(), useArrow=False)("id")))
    show(ferry, id="plan-error")


def is_deeper_than_decoders_like():
    ferry = Ferry()
    df = ferry.spark.range(1)
    for _ in range(70):
        df = df.select((F.col("id") + 1).alias("id"))
    ferry.rows(df)
    show(ferry, id="plan-deep")


for program in (writes_and_appends_parquet, calls_a_function_of_an_artifact, fails_in_python,
                is_deeper_than_decoders_like):
    program()
