"""Runs databricks-sdk for Python, unchanged, against a sandbox.

Usage: sdk_against_sandbox.py HOST     (for example http://127.0.0.1:8080)

Exits 0 if everything came out as asserted. Jobs, runs and clusters are the script's own, so it can
be run again and again against one sandbox.
"""

import datetime
import sys
import uuid

from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import BadRequest, DatabricksError, InvalidParameterValue, OperationFailed
from databricks.sdk.service import compute, jobs

HOST = sys.argv[1]
SHORT = datetime.timedelta(seconds=30)
MARK = uuid.uuid4().hex[:8]


def client(**credentials):
    return WorkspaceClient(host=HOST, **credentials)


def task(key, depends_on=(), **choices):
    parameters = {f"sandbox.{name}": str(value) for name, value in choices.items()}
    return jobs.SubmitTask(
        task_key=key,
        existing_cluster_id="c1",
        notebook_task=jobs.NotebookTask(notebook_path="/n", base_parameters=parameters),
        depends_on=[jobs.TaskDependency(task_key=upstream) for upstream in depends_on],
    )


def refused(call, *needles, kind=DatabricksError):
    try:
        call()
    except kind as error:
        for needle in needles:
            assert needle in str(error), f"{needle!r} is not in {error!r}"
        return error
    raise AssertionError(f"not refused: {needles}")


def submit_and_wait(w):
    token = f"submit-{MARK}"
    body = dict(run_name=f"submit {MARK}", idempotency_token=token,
                tasks=[task("main", duration_ms=50, output="42")])
    waiter = w.jobs.submit(**body)
    assert w.jobs.submit(**body).run_id == waiter.run_id, "a known token must return its run"
    run = waiter.result(timeout=SHORT)
    assert run.run_id == waiter.run_id
    assert run.state.life_cycle_state == jobs.RunLifeCycleState.TERMINATED
    assert run.state.result_state == jobs.RunResultState.SUCCESS
    assert run.status.state == jobs.RunLifecycleStateV2State.TERMINATED
    assert run.status.termination_details.code == jobs.TerminationCodeCode.SUCCESS
    assert run.status.termination_details.type == jobs.TerminationTypeType.SUCCESS
    assert run.run_page_url == f"{HOST}/#job/{run.job_id}/run/{run.run_id}"
    assert run.end_time >= run.start_time > 0
    assert [t.task_key for t in run.tasks] == ["main"]
    output = w.jobs.get_run_output(run.tasks[0].run_id)
    assert output.notebook_output.result == "42" and output.notebook_output.truncated is False
    assert output.metadata.run_id == run.tasks[0].run_id
    refused(lambda: w.jobs.get_run_output(run.run_id),
            "Retrieving the output of runs with multiple tasks is not supported", kind=BadRequest)


def failures(w):
    waiter = w.jobs.submit(run_name=f"fails {MARK}",
                           tasks=[task("main", outcome="FAILED", error="ValueError: boom", trace="Traceback: boom")])
    refused(lambda: waiter.result(timeout=SHORT), kind=OperationFailed)
    run = w.jobs.get_run(waiter.run_id)
    assert run.state.life_cycle_state == jobs.RunLifeCycleState.INTERNAL_ERROR
    assert run.state.result_state == jobs.RunResultState.FAILED
    assert run.state.state_message == (
        "Task main failed with message: Workload failed, see run output for details.")
    assert run.status.termination_details.code == jobs.TerminationCodeCode.RUN_EXECUTION_ERROR
    assert run.status.termination_details.type == jobs.TerminationTypeType.CLIENT_ERROR
    assert run.tasks[0].state.life_cycle_state == jobs.RunLifeCycleState.TERMINATED
    output = w.jobs.get_run_output(run.tasks[0].run_id)
    assert (output.error, output.error_trace) == ("ValueError: boom", "Traceback: boom")
    for code in jobs.TerminationCodeCode:
        run_id = w.jobs.submit(run_name=f"{code} {MARK}", tasks=[task("main", outcome=code.value, duration_ms=0)]).run_id
        details = w.jobs.get_run(run_id).status.termination_details
        expected = "CANCELED" if code.value == "TIMEDOUT" else code.value
        assert details.code is not None and details.code.value == expected, details
        assert details.type is not None


def run_now_and_wait(w):
    name = f"Job {MARK}"
    job_id = w.jobs.create(
        name=name,
        parameters=[jobs.JobParameterDefinition(name="a", default="0")],
        tasks=[jobs.Task(task_key="main", notebook_task=jobs.NotebookTask(
            notebook_path="/n", base_parameters={"sandbox.duration_ms": "30", "sandbox.output": "base"}))],
    ).job_id
    assert [job.job_id for job in w.jobs.list(name=name.upper())] == [job_id]
    assert w.jobs.get(job_id).settings.tasks[0].task_key == "main"
    token = f"run-now-{MARK}"
    waiter = w.jobs.run_now(job_id, idempotency_token=token, job_parameters={"a": "b", "sandbox.output": "given"})
    run = waiter.result(timeout=SHORT)
    assert run.job_id == job_id and run.run_name == name and run.run_type == jobs.RunType.JOB_RUN
    assert {p.name: p.value for p in run.job_parameters}["a"] == "b"
    assert w.jobs.get_run_output(run.tasks[0].run_id).notebook_output.result == "given"
    assert w.jobs.run_now(job_id, idempotency_token=token).run_id == run.run_id
    refused(lambda: w.jobs.run_now(job_id, idempotency_token="x" * 65), "64", kind=InvalidParameterValue)
    w.jobs.delete_run(run.run_id)
    refused(lambda: w.jobs.get_run(run.run_id), f"Run {run.run_id} does not exist.")
    refused(lambda: w.jobs.run_now(job_id, idempotency_token=token), "deleted", kind=BadRequest)
    w.jobs.delete(job_id)
    refused(lambda: w.jobs.get(job_id), f"Job {job_id} does not exist.")


def dependencies(w):
    run = w.jobs.submit(run_name=f"dag {MARK}", tasks=[
        task("load", depends_on=["create", "upload"], duration_ms=20),
        task("create", duration_ms=20), task("upload", duration_ms=60),
    ]).result(timeout=SHORT)
    tasks = {t.task_key: t for t in run.tasks}
    assert tasks["load"].start_time >= max(tasks["create"].end_time, tasks["upload"].end_time)


def cancel(w):
    waiter = w.jobs.submit(run_name=f"long {MARK}", tasks=[task("main", duration_ms=600_000)])
    run = w.jobs.cancel_run_and_wait(waiter.run_id, timeout=SHORT)
    assert run.state.result_state == jobs.RunResultState.CANCELED
    assert run.state.user_cancelled_or_timedout
    assert run.status.termination_details.code == jobs.TerminationCodeCode.USER_CANCELED
    w.jobs.cancel_run(waiter.run_id)


def listing(w):
    job_id = w.jobs.create(name=f"many {MARK}", tasks=[jobs.Task(
        task_key="main", notebook_task=jobs.NotebookTask(notebook_path="/n"))]).job_id
    started = [w.jobs.run_now(job_id).run_id for _ in range(60)]
    for run_id in started[:10]:
        w.jobs.get_run(run_id)
    listed = list(w.jobs.list_runs(job_id=job_id, limit=25, expand_tasks=True))
    assert [run.run_id for run in listed] == started[::-1]
    assert all(run.tasks[0].task_key == "main" for run in listed)
    for run_id in started:
        w.jobs.wait_get_run_job_terminated_or_skipped(run_id, timeout=SHORT)
    assert list(w.jobs.list_runs(job_id=job_id, active_only=True)) == []
    assert len(list(w.jobs.list_runs(job_id=job_id, completed_only=True, limit=7))) == 60
    refused(lambda: list(w.jobs.list_runs(limit=27)), "Invalid limit 27", kind=BadRequest)
    big = w.jobs.submit(run_name=f"big {MARK}", tasks=[task(f"t{n}", duration_ms=0) for n in range(250)])
    assert len(w.jobs.get_run(big.run_id).tasks) == 250, "the pages of a run's tasks are joined"


def repair(w):
    run_id = w.jobs.submit(run_name=f"repaired {MARK}", tasks=[
        task("good", duration_ms=1500),
        task("bad", depends_on=["good"], duration_ms=10, outcomes="CLUSTER_ERROR,FAILED,SUCCESS"),
        task("after", depends_on=["bad"], duration_ms=10),
    ]).run_id
    refused(lambda: w.jobs.repair_run(run_id, rerun_all_failed_tasks=True), "active", kind=BadRequest)
    refused(lambda: w.jobs.wait_get_run_job_terminated_or_skipped(run_id, timeout=SHORT), kind=OperationFailed)
    run = w.jobs.get_run(run_id)
    assert {t.task_key: t.state.result_state.value for t in run.tasks} == {
        "good": "SUCCESS", "bad": "FAILED", "after": "UPSTREAM_FAILED"}
    first = w.jobs.repair_run(run_id, rerun_all_failed_tasks=True)
    repair_id = first.response.repair_id
    refused(lambda: first.result(timeout=SHORT), kind=OperationFailed)
    refused(lambda: w.jobs.repair_run(run_id, rerun_all_failed_tasks=True), "latest_repair_id", kind=BadRequest)
    run = w.jobs.repair_run(run_id, rerun_tasks=["bad", "after"], latest_repair_id=repair_id).result(timeout=SHORT)
    assert run.run_id == run_id and run.state.result_state == jobs.RunResultState.SUCCESS
    attempts = sorted((t.task_key, t.attempt_number) for t in run.tasks)
    assert attempts == [("after", 0), ("after", 1), ("after", 2), ("bad", 0), ("bad", 1), ("bad", 2), ("good", 0)]
    history = w.jobs.get_run(run_id, include_history=True).repair_history
    assert [item.type.value for item in history] == ["ORIGINAL", "REPAIR", "REPAIR"]
    assert history[1].id == repair_id and len(history[2].task_run_ids) == 2


def clusters(w):
    created = w.clusters.create(spark_version="15.4.x-scala2.12", cluster_name=f"c {MARK}", num_workers=1,
                                custom_tags={"sandbox.start_ms": "1500"}, autotermination_minutes=10)
    refused(lambda: w.clusters.start(created.cluster_id), "is in unexpected state Pending.", kind=BadRequest)
    cluster = created.result(timeout=SHORT)
    assert cluster.state == compute.State.RUNNING
    stopped = w.clusters.delete(cluster.cluster_id).result(timeout=SHORT)
    assert stopped.state == compute.State.TERMINATED
    assert stopped.termination_reason.code == compute.TerminationReasonCode.USER_REQUEST
    assert w.clusters.start(cluster.cluster_id).result(timeout=SHORT).state == compute.State.RUNNING
    w.clusters.delete(cluster.cluster_id).result(timeout=SHORT)
    w.clusters.ensure_cluster_is_running(cluster.cluster_id)
    assert w.clusters.get(cluster.cluster_id).state == compute.State.RUNNING
    assert cluster.cluster_id in [c.cluster_id for c in w.clusters.list()]
    library = compute.Library(pypi=compute.PythonPyPiLibrary(package="simplejson"))
    w.libraries.install(cluster.cluster_id, [library])
    [status] = w.libraries.cluster_status(cluster.cluster_id)
    assert status.status == compute.LibraryInstallStatus.INSTALLED
    w.clusters.permanent_delete(cluster.cluster_id)
    refused(lambda: w.clusters.get(cluster.cluster_id), "does not exist")


def credentials():
    assert client(token="pat").current_user.me().user_name
    machine = client(client_id="id", client_secret="secret", auth_type="oauth-m2m")
    assert machine.current_user.me().user_name
    assert machine.jobs.submit(run_name=f"m2m {MARK}", tasks=[task("main", duration_ms=0)]).result(timeout=SHORT)


def main():
    w = client(token="pat")
    for part in (submit_and_wait, failures, run_now_and_wait, dependencies, cancel, listing, repair, clusters):
        part(w)
        print("ok", part.__name__, flush=True)
    credentials()
    print("ok credentials")


if __name__ == "__main__":
    main()
