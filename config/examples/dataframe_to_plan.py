"""Turns a PySpark program into a request for Sparkferry. Needs `pip install 'pyspark[connect]'`; no server.

    ferry = Ferry()
    ferry.sql("CREATE TABLE IF NOT EXISTS t (n int)")        # a statement
    ferry.spark.read.json("in.json").write.saveAsTable("t")  # a write: a step, where it would have run
    ferry.rows(ferry.spark.table("t").limit(10))             # a query whose rows the result holds
    print(ferry.request(id="load-t", connection="lake"))
What asks a server at once (df.columns, df.show()) is refused. A UDF: F.udf(f, LongType(), useArrow=False).
"""

import json
from base64 import b64encode
from pathlib import Path
from pyspark.errors import utils
from pyspark.sql import SparkSession
from pyspark.sql.connect import proto


def no_server(*_, **__):
    raise RuntimeError("this asks a server, and there is none while a request is written")


class Ferry:
    def __init__(self):
        self.steps, self.artifacts = [], []
        # Nothing listens there: a session meets its server with its first call, and makes none here.
        self.spark = SparkSession.builder.remote("sc://127.0.0.1:1").create()
        client = self.spark.client
        client._plan_compression_threshold, client._plan_compression_algorithm = -1, "NONE"
        utils._enable_debugging_cache = False  # else asked of the server
        client.execute_command = self._command
        client._execute_and_fetch = client._execute_and_fetch_as_iterator = client._analyze = client.config = no_server

    def sql(self, statement, **args):
        """A step: one statement, with values for its parameters `:name`."""
        self.steps.append({"sql": statement, "args": args})

    def rows(self, df):
        """A step: a query, whose rows come back in the result."""
        self._plan(df._plan.to_proto(self.spark.client))

    def artifact(self, path):
        """A Python file that the steps' functions import."""
        data = b64encode(Path(path).read_bytes()).decode()
        self.artifacts.append({"name": f"pyfiles/{Path(path).name}", "data": data})

    def request(self, conf=None, row_limit=1000, **fields):
        """The request as JSON. `fields` are its own: id, connection, rerun_if_lost and so on."""
        work = {"steps": self.steps, "conf": conf or {}, "artifacts": self.artifacts, "row_limit": row_limit}
        return json.dumps({**fields, "spark_connect": work}, indent=2)

    def _command(self, command, *_):
        if not command.HasField("sql_command"):
            self._plan(proto.Plan(command=command))
        elif not command.sql_command.input.sql.query.lstrip().lower().startswith("select"):
            raise RuntimeError("spark.sql() is for SELECT here; a statement is a step: Ferry.sql()")
        return None, {}, None

    def _plan(self, plan):
        self.steps.append({"plan": b64encode(plan.SerializeToString()).decode()})
