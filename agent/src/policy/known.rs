//! The fields of Databricks' request bodies that the policy knows. Where it looks, a field that
//! stands in none of these lists does not pass: it might ask for what the rules forbid. A field that
//! Databricks adds one day is added here, once it is known what it does.

/// `run_now`, `job_name` included.
pub(super) const RUN_NOW: &[&str] = &[
    "job_id",
    "job_name",
    "job_parameters",
    "notebook_params",
    "python_params",
    "python_named_params",
    "jar_params",
    "spark_submit_params",
    "sql_params",
    "dbt_commands",
    "pipeline_params",
    "only",
    "queue",
    "performance_target",
];

/// `run_job_task`, which is a `run_now` inside a task.
pub(super) const RUN_JOB: &[&str] = &[
    "job_id",
    "job_parameters",
    "notebook_params",
    "python_params",
    "python_named_params",
    "jar_params",
    "spark_submit_params",
    "sql_params",
    "dbt_commands",
    "pipeline_params",
];

/// `submit_run`, without the fields of the one task of its older form.
pub(super) const SUBMIT_RUN: &[&str] = &[
    "run_name",
    "tasks",
    "job_clusters",
    "environments",
    "environment_variables",
    "git_source",
    "run_as",
    "access_control_list",
    "budget_policy_id",
    "usage_policy_id",
    "queue",
    "performance_target",
];

/// A task, without its kind.
pub(super) const TASK: &[&str] = &[
    "task_key",
    "description",
    "depends_on",
    "run_if",
    "disabled",
    "new_cluster",
    "existing_cluster_id",
    "job_cluster_key",
    "environment_key",
    "environment_variables_key",
    "compute",
    "libraries",
    "timeout_seconds",
    "max_retries",
    "min_retry_interval_millis",
    "retry_on_timeout",
    "disable_auto_optimization",
    "email_notifications",
    "webhook_notifications",
    "notification_settings",
    "health",
];

/// The kinds of tasks.
pub(super) const KINDS: &[&str] = &[
    "ai_function_task",
    "ai_runtime_task",
    "alert_task",
    "clean_rooms_notebook_task",
    "condition_task",
    "dashboard_task",
    "dbt_cloud_task",
    "dbt_platform_task",
    "dbt_task",
    "for_each_task",
    "gen_ai_compute_task",
    "notebook_task",
    "pipeline_task",
    "power_bi_task",
    "python_operator_task",
    "python_wheel_task",
    "run_job_task",
    "spark_jar_task",
    "spark_python_task",
    "spark_submit_task",
    "sql_task",
];

/// The kinds that need neither a cluster nor serverless compute: what they cost is another thing's
/// (a warehouse's, a pipeline's, a job's), or nothing. Of all others a task without a cluster runs on
/// serverless compute.
pub(super) const WITHOUT_CLUSTER: &[&str] = &[
    "alert_task",
    "condition_task",
    "dashboard_task",
    "dbt_cloud_task",
    "dbt_platform_task",
    "for_each_task",
    "pipeline_task",
    "power_bi_task",
    "run_job_task",
    "sql_task",
];

/// `for_each_task`.
pub(super) const FOR_EACH: &[&str] = &["inputs", "concurrency", "task"];

/// An entry of `job_clusters`.
pub(super) const JOB_CLUSTER: &[&str] = &["job_cluster_key", "new_cluster"];

/// An entry of `environments`.
pub(super) const ENVIRONMENT: &[&str] = &["environment_key", "spec"];

/// `run_as`.
pub(super) const RUN_AS: &[&str] = &["user_name", "service_principal_name", "group_name"];

/// `git_source`.
pub(super) const GIT_SOURCE: &[&str] = &[
    "git_url",
    "git_provider",
    "git_branch",
    "git_tag",
    "git_commit",
    "git_snapshot",
    "job_source",
    "sparse_checkout",
];

/// `new_cluster`.
pub(super) const CLUSTER: &[&str] = &[
    "apply_policy_default_values",
    "autoscale",
    "autotermination_minutes",
    "aws_attributes",
    "azure_attributes",
    "cluster_log_conf",
    "cluster_name",
    "custom_tags",
    "data_security_mode",
    "dependency_mode",
    "docker_image",
    "driver_instance_pool_id",
    "driver_node_type_flexibility",
    "driver_node_type_id",
    "enable_elastic_disk",
    "enable_local_disk_encryption",
    "gcp_attributes",
    "idempotency_token",
    "init_scripts",
    "instance_pool_id",
    "is_single_node",
    "kind",
    "node_type_id",
    "num_workers",
    "policy_id",
    "remote_disk_throughput",
    "runtime_engine",
    "single_user_name",
    "spark_conf",
    "spark_env_vars",
    "spark_version",
    "ssh_public_keys",
    "total_initial_remote_disk_size",
    "use_ml_runtime",
    "worker_node_type_flexibility",
    "workload_type",
];

/// `autoscale`.
pub(super) const AUTOSCALE: &[&str] = &["min_workers", "max_workers"];

/// `driver_node_type_flexibility` and `worker_node_type_flexibility`.
pub(super) const FLEXIBILITY: &[&str] = &["alternate_node_type_ids"];

/// `aws_attributes`, `azure_attributes` and `gcp_attributes` alike.
pub(super) const CLOUD: &[&str] = &[
    "availability",
    "boot_disk_size",
    "capacity_reservation_group",
    "confidential_compute_type",
    "ebs_volume_count",
    "ebs_volume_iops",
    "ebs_volume_size",
    "ebs_volume_throughput",
    "ebs_volume_type",
    "first_on_demand",
    "google_service_account",
    "instance_profile_arn",
    "local_ssd_count",
    "log_analytics_info",
    "spot_bid_max_price",
    "spot_bid_price_percent",
    "use_preemptible_executors",
    "zone_id",
];
