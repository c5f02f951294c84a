//! A new cluster: what it is made of, how large it gets, how it ends.

use super::json::{Node, Object, shown};
use super::{Breach, conf, known};
use crate::config::PolicySettings;

/// Words by which the three clouds say that workers are spot instances and nothing else.
const SPOT: [(&str, &str); 3] = [
    ("aws_attributes", "SPOT"),
    ("azure_attributes", "SPOT_AZURE"),
    ("gcp_attributes", "PREEMPTIBLE_GCP"),
];

/// The one variable that a cluster may set where its confs are restricted.
const HARMLESS_VARIABLE: &str = "PYSPARK_PYTHON";

/// Judges a `new_cluster`.
pub(super) fn new_cluster(policy: &PolicySettings, cluster: &Node<'_>) -> Result<(), Breach> {
    let fields = cluster.object(|name| known::CLUSTER.contains(&name))?;
    node_types(policy, &fields)?;
    workers(policy, &fields)?;
    autotermination(policy, &fields)?;
    tags(policy, &fields)?;
    spot(policy, &fields)?;
    confs(policy, &fields)
}

fn node_types(policy: &PolicySettings, fields: &Object<'_>) -> Result<(), Breach> {
    let Some(allowed) = &policy.node_types else {
        return Ok(());
    };
    let rule = "node_types";
    let judge = |node: &Node<'_>| {
        let text = node.text()?;
        if allowed.contains(text) {
            return Ok(());
        }
        let why = format!("{} is not in the list", shown(text));
        Err(Breach::of(rule, &node.path, why))
    };
    no_pool(rule, fields)?;
    match fields.get("node_type_id") {
        Some(node) => judge(&node)?,
        None => return Err(Breach::of(rule, fields.at("node_type_id"), "is missing")),
    }
    if let Some(driver) = fields.get("driver_node_type_id") {
        judge(&driver)?;
    }
    for name in [
        "driver_node_type_flexibility",
        "worker_node_type_flexibility",
    ] {
        let Some(flexibility) = fields.get(name) else {
            continue;
        };
        let flexibility = flexibility.object(|name| known::FLEXIBILITY.contains(&name))?;
        if let Some(others) = flexibility.get("alternate_node_type_ids") {
            others.items()?.iter().try_for_each(judge)?;
        }
    }
    Ok(())
}

/// A pool decides what nodes are, and it can't be looked at from here.
fn no_pool(rule: &'static str, fields: &Object<'_>) -> Result<(), Breach> {
    let pools = ["instance_pool_id", "driver_instance_pool_id"];
    match pools.into_iter().find_map(|name| fields.get(name)) {
        Some(pool) => {
            let why = "what the nodes of a pool are can't be seen here";
            Err(Breach::of(rule, pool.path, why))
        }
        None => Ok(()),
    }
}

fn workers(policy: &PolicySettings, fields: &Object<'_>) -> Result<(), Breach> {
    let Some(most) = policy.max_workers else {
        return Ok(());
    };
    let rule = "max_workers";
    let judge = |node: &Node<'_>| match node.whole()? {
        count if (0..=most).contains(&count) => Ok(()),
        count => Err(Breach::of(
            rule,
            &node.path,
            format!("{count} is not within 0 and {most}"),
        )),
    };
    let number = fields.get("num_workers");
    if let Some(number) = &number {
        judge(number)?;
    }
    if let Some(scale) = fields.get("autoscale") {
        let scale = scale.object(|name| known::AUTOSCALE.contains(&name))?;
        if let Some(min) = scale.get("min_workers") {
            judge(&min)?;
        }
        return match scale.get("max_workers") {
            Some(max) => judge(&max),
            None => Err(Breach::of(rule, scale.at("max_workers"), "is missing")),
        };
    }
    let single = fields
        .get("is_single_node")
        .map(|node| node.yes())
        .transpose()?;
    if number.is_none() && single != Some(true) {
        return Err(Breach::of(rule, fields.at("num_workers"), "is missing"));
    }
    Ok(())
}

fn autotermination(policy: &PolicySettings, fields: &Object<'_>) -> Result<(), Breach> {
    let Some(most) = policy.max_autotermination_minutes else {
        return Ok(());
    };
    let rule = "max_autotermination_minutes";
    let name = "autotermination_minutes";
    let Some(minutes) = fields.get(name) else {
        return Err(Breach::of(
            rule,
            fields.at(name),
            format!("is missing, at most {most}"),
        ));
    };
    match minutes.whole()? {
        count if (1..=most).contains(&count) => Ok(()),
        count => {
            let why = format!("{count} is not within 1 and {most}");
            Err(Breach::of(rule, minutes.path, why))
        }
    }
}

fn tags(policy: &PolicySettings, fields: &Object<'_>) -> Result<(), Breach> {
    let Some(wanted) = &policy.tags else {
        return Ok(());
    };
    let rule = "tags";
    let Some(tags) = fields.get("custom_tags") else {
        return Err(Breach::of(rule, fields.at("custom_tags"), "is missing"));
    };
    let tags = tags.any_object()?;
    for (name, value) in wanted {
        let Some(tag) = tags.get(name) else {
            return Err(Breach::of(rule, tags.at(name), "is missing"));
        };
        let text = tag.text()?;
        if value == "*" && text.trim().is_empty() {
            return Err(Breach::of(rule, tag.path, "is empty"));
        }
        if value != "*" && text != value {
            let why = format!("{} is not {value:?}", shown(text));
            return Err(Breach::of(rule, tag.path, why));
        }
    }
    Ok(())
}

fn spot(policy: &PolicySettings, fields: &Object<'_>) -> Result<(), Breach> {
    if !policy.spot_only {
        return Ok(());
    }
    let rule = "spot_only";
    no_pool(rule, fields)?;
    let mut said = false;
    for (cloud, wanted) in SPOT {
        let Some(attributes) = fields.get(cloud) else {
            continue;
        };
        let attributes = attributes.object(|name| known::CLOUD.contains(&name))?;
        let Some(availability) = attributes.get("availability") else {
            return Err(Breach::of(
                rule,
                attributes.at("availability"),
                "is missing",
            ));
        };
        if availability.text()? != wanted {
            return Err(Breach::of(
                rule,
                availability.path,
                format!("must be {wanted}"),
            ));
        }
        // The first node is the driver: without it the work is lost, so it may be kept.
        if let Some(first) = attributes.get("first_on_demand")
            && !(0..=1).contains(&first.whole()?)
        {
            let why = "only the first node, the driver, may be on demand";
            return Err(Breach::of(rule, first.path, why));
        }
        said = true;
    }
    if said {
        return Ok(());
    }
    let why = "must say that its workers are spot instances, by aws_attributes, azure_attributes or gcp_attributes";
    Err(Breach::of(rule, &fields.path, why))
}

fn confs(policy: &PolicySettings, fields: &Object<'_>) -> Result<(), Breach> {
    let Some(allowed) = &policy.spark_confs else {
        return Ok(());
    };
    if let Some(confs) = fields.get("spark_conf") {
        let names = confs.any_object()?;
        for name in names.names() {
            conf(allowed, &names.path, name)?;
        }
    }
    // JAVA_OPTS, PYSPARK_SUBMIT_ARGS and their like set confs too.
    if let Some(variables) = fields.get("spark_env_vars") {
        let variables = variables.any_object()?;
        if let Some(name) = variables.names().find(|name| *name != HARMLESS_VARIABLE) {
            let why = format!("can set any conf; only {HARMLESS_VARIABLE} may stand there");
            return Err(Breach::of("spark_confs", variables.at(name), why));
        }
    }
    Ok(())
}
