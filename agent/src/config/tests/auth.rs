//! Ways to be let in: by settings, by the environment of Databricks' tools, by their profiles.

use std::path::Path;

use super::super::{Auth, Reach, SecretSource};
use super::{PROD, SECRET, fails, load_text, prod};

const BARE: &str = "[connections.prod]\ntype = \"databricks\"\n";
const HOST: (&str, &str) = ("DATABRICKS_HOST", "adb-1.azuredatabricks.net");

fn with(auth: &str) -> String {
    PROD.replace(r#"{ type = "pat", token = "t" }"#, auth)
}

/// How the connection is let in, without any secret.
fn auth(text: &str, variables: &[(&str, &str)]) -> Auth {
    let settings = load_text(text, variables).unwrap();
    prod(&settings).auth.clone()
}

fn secret(source: &SecretSource) -> String {
    source.read_at_start().unwrap().expose().to_owned()
}

#[test]
fn every_kind_is_read_and_what_is_left_out_comes_from_variables() {
    let Auth::OauthM2m {
        client_id,
        client_secret,
    } = auth(
        &with(r#"{ type = "oauth_m2m", client_id = "app" }"#),
        &[("DATABRICKS_CLIENT_SECRET", "s")],
    )
    else {
        panic!("another kind")
    };
    assert_eq!(
        (client_id.as_str(), secret(&client_secret).as_str()),
        ("app", "s")
    );

    let principal = r#"{ type = "azure_service_principal", tenant_id = "t", client_id = "app", client_secret = "s" }"#;
    let Auth::AzureServicePrincipal {
        authority_host,
        workspace,
        ..
    } = auth(&with(principal), &[])
    else {
        panic!("another kind")
    };
    assert_eq!(
        authority_host.as_str(),
        "https://login.microsoftonline.com/"
    );
    assert_eq!(workspace, None);

    let Auth::AzureManagedIdentity {
        endpoint,
        workspace,
        client_id,
    } = auth(
        &with(r#"{ type = "azure_managed_identity" }"#),
        &[("DATABRICKS_AZURE_RESOURCE_ID", "/subscriptions/s/w")],
    )
    else {
        panic!("another kind")
    };
    assert_eq!(
        (endpoint.as_str(), client_id),
        ("http://169.254.169.254/", None)
    );
    assert_eq!(workspace.unwrap().resource_id, "/subscriptions/s/w");

    let federation = r#"{ type = "federation", token_file = "/t" }"#;
    let Auth::Federation { token, client_id } =
        auth(&with(federation), &[("DATABRICKS_CLIENT_ID", "app")])
    else {
        panic!("another kind")
    };
    assert!(matches!(token, SecretSource::File(path) if path == Path::new("/t")));
    assert_eq!(client_id.as_deref(), Some("app"));
}

#[test]
fn another_cloud_of_azure_has_other_endpoints() {
    let text = with(
        r#"{ type = "azure_service_principal", tenant_id = "t", client_id = "app", client_secret = "s", azure_workspace_resource_id = "/subscriptions/s/w" }"#,
    )
    .replace("azuredatabricks.net", "databricks.azure.us");
    let Auth::AzureServicePrincipal {
        authority_host,
        workspace,
        ..
    } = auth(&text, &[])
    else {
        panic!("another kind")
    };
    assert_eq!(authority_host.as_str(), "https://login.microsoftonline.us/");
    let management = workspace.unwrap().management;
    assert_eq!(management, "https://management.core.usgovcloudapi.net/");
}

#[test]
fn what_is_missing_or_unsafe_is_named() {
    for (auth, words) in [
        (
            r#"{ type = "oauth_m2m", client_secret = "hunter2" }"#,
            ["auth.client_id", "DATABRICKS_CLIENT_ID"],
        ),
        (
            r#"{ type = "oauth_m2m", client_id = "app" }"#,
            ["auth.client_secret_file", "DATABRICKS_CLIENT_SECRET"],
        ),
        (
            r#"{ type = "oauth_m2m", client_id = "app", client_secret = "hunter2", client_secret_file = "x" }"#,
            ["auth.client_secret", "only one of"],
        ),
        (
            r#"{ type = "oauth_m2m", client_id = "app", secret = "hunter2" }"#,
            ["auth.secret", "unknown field"],
        ),
        (
            r#"{ type = "azure_service_principal", client_id = "app", client_secret = "hunter2" }"#,
            ["auth.tenant_id", "ARM_TENANT_ID"],
        ),
        (
            r#"{ type = "azure_service_principal", tenant_id = "t/../u", client_id = "app", client_secret = "hunter2" }"#,
            ["auth.tenant_id", "no tenant"],
        ),
        (
            r#"{ type = "azure_service_principal", tenant_id = "t", client_id = "app", client_secret = "hunter2", authority_host = "http://login.example" }"#,
            ["auth.authority_host", "clear text"],
        ),
        (
            r#"{ type = "azure_managed_identity", endpoint = "http://10.0.0.1" }"#,
            ["auth.endpoint", "another machine"],
        ),
        (
            r#"{ type = "azure_managed_identity", azure_workspace_resource_id = "w" }"#,
            ["auth.azure_workspace_resource_id", "/subscriptions/"],
        ),
        (
            r#"{ type = "federation" }"#,
            ["auth.token_file", "DATABRICKS_OIDC_TOKEN_FILEPATH"],
        ),
        (
            r#"{ type = "federation", token_file = "${CREDENTIALS_DIRECTORY}/t" }"#,
            ["auth.token_file", "LoadCredential"],
        ),
        (r#"{ type = "profile" }"#, ["auth", "\"profile\""]),
        (
            r#"{ type = "profile", profile = "p" }"#,
            ["auth", "config_file"],
        ),
        (
            r#"{ type = "profile", profile = "p", config_file = "/no/such" }"#,
            ["auth", "/no/such"],
        ),
        (
            r#"{ type = "kerberos" }"#,
            ["auth.type", "azure_managed_identity"],
        ),
    ] {
        fails(&with(auth), &[], &words);
    }
}

/// All that the environment of Databricks' tools may hold.
const ALL: [(&str, &str); 8] = [
    ("DATABRICKS_TOKEN", SECRET),
    ("DATABRICKS_CLIENT_ID", "app"),
    ("DATABRICKS_CLIENT_SECRET", SECRET),
    ("DATABRICKS_OIDC_TOKEN", SECRET),
    ("DATABRICKS_OIDC_TOKEN_FILEPATH", "/t"),
    ("ARM_USE_MSI", "true"),
    ("ARM_CLIENT_ID", "azure-app"),
    ("ARM_CLIENT_SECRET", SECRET),
];

#[test]
fn the_environment_is_tried_in_the_order_of_databricks_own_tools() {
    // Each step takes away what the kind before needs.
    let mut variables = vec![HOST, ("ARM_TENANT_ID", "t")];
    variables.extend(ALL);
    let mut without = |name: &str| {
        variables.retain(|(key, _)| *key != name);
        auth(BARE, &variables)
    };
    assert!(matches!(without(""), Auth::Pat(_)));
    assert!(matches!(without("DATABRICKS_TOKEN"), Auth::OauthM2m { .. }));
    assert!(matches!(
        without("DATABRICKS_CLIENT_SECRET"),
        Auth::Federation {
            token: SecretSource::Value(_),
            client_id: Some(_)
        }
    ));
    assert!(matches!(
        without("DATABRICKS_OIDC_TOKEN"),
        Auth::Federation {
            token: SecretSource::File(_),
            ..
        }
    ));
    assert!(matches!(
        without("DATABRICKS_OIDC_TOKEN_FILEPATH"),
        Auth::AzureManagedIdentity {
            client_id: Some(_),
            ..
        }
    ));
    assert!(matches!(
        without("ARM_USE_MSI"),
        Auth::AzureServicePrincipal { .. }
    ));
    variables.retain(|(key, _)| *key != "ARM_CLIENT_SECRET");
    fails(
        BARE,
        &variables,
        &["connections.prod.auth", "DATABRICKS_TOKEN"],
    );
}

#[test]
fn azures_variables_are_for_azures_workspaces() {
    let mut variables = vec![("DATABRICKS_HOST", "dbc-1.cloud.databricks.com")];
    variables.extend([
        ("ARM_CLIENT_ID", "app"),
        ("ARM_CLIENT_SECRET", SECRET),
        ("ARM_TENANT_ID", "t"),
    ]);
    fails(BARE, &variables, &["connections.prod.auth"]);
    variables.push(("DATABRICKS_AZURE_RESOURCE_ID", "/subscriptions/s/w"));
    assert!(matches!(
        auth(BARE, &variables),
        Auth::AzureServicePrincipal {
            workspace: Some(_),
            ..
        }
    ));
}

#[test]
fn a_kind_can_be_named_and_excludes_the_others() {
    let mut variables = vec![HOST, ("ARM_TENANT_ID", "t")];
    variables.extend(ALL);
    let named = |kind: &'static str| {
        let mut all = variables.clone();
        all.push(("DATABRICKS_AUTH_TYPE", kind));
        all
    };
    assert!(matches!(auth(BARE, &named("pat")), Auth::Pat(_)));
    assert!(matches!(
        auth(BARE, &named("oauth-m2m")),
        Auth::OauthM2m { .. }
    ));
    assert!(matches!(
        auth(BARE, &named("file-oidc")),
        Auth::Federation { .. }
    ));
    assert!(matches!(
        auth(BARE, &named("azure-client-secret")),
        Auth::AzureServicePrincipal { .. }
    ));
    fails(
        BARE,
        &named("databricks-cli"),
        &["DATABRICKS_AUTH_TYPE", "\"databricks-cli\"", "oauth-m2m"],
    );
    fails(
        BARE,
        &[HOST, ("DATABRICKS_AUTH_TYPE", "oauth-m2m"), ALL[0]],
        &["connections.prod.auth.client_id", "DATABRICKS_CLIENT_ID"],
    );
    // The settings win over all of it.
    assert!(matches!(auth(PROD, &named("oauth-m2m")), Auth::Pat(_)));
}

#[test]
fn profiles_are_read_as_databricks_tools_write_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(".databrickscfg");
    std::fs::write(
        &path,
        "; made by hand\n[DEFAULT]\nhost = https://one.example\ntoken=hunter2\n\n\
         [__settings__]\ndefault_profile = two\n[two]\n# a comment\nhost = two.example\n\
         CLIENT_ID = app\nclient_secret = s=e;c\n\n[empty]\n",
    )
    .unwrap();
    let home = ("HOME", dir.path().to_str().unwrap());

    // Nothing is set at all: the profile DEFAULT.
    let settings = load_text(BARE, &[home]).unwrap();
    assert_eq!(prod(&settings).host.as_str(), "https://one.example/");
    let Auth::Pat(source) = &prod(&settings).auth else {
        panic!("another kind")
    };
    assert_eq!(secret(source), SECRET);
    assert!(!format!("{settings:?}").contains(SECRET));

    // A rotated profile is read again; an entry that is gone is told.
    let rotated = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, rotated.replace(SECRET, "newer")).unwrap();
    assert_eq!(secret(source), "newer");
    std::fs::write(&path, rotated.replace("token=hunter2", "")).unwrap();
    let error = source.read_at_start().unwrap_err().to_string();
    assert!(
        error.contains("[DEFAULT]") && error.contains("no token"),
        "{error}"
    );
    // Another workspace's token is not for this one.
    std::fs::write(&path, rotated.replace("one.example", "six.example")).unwrap();
    let error = source.read_at_start().unwrap_err().to_string();
    assert!(
        error.contains("[DEFAULT]") && error.contains("another host"),
        "{error}"
    );
    std::fs::write(&path, rotated).unwrap();

    // A profile by its name, in the environment and in the settings.
    let by_variable = auth(BARE, &[home, ("DATABRICKS_CONFIG_PROFILE", "two")]);
    let file = path.to_str().unwrap();
    let by_file = auth(
        BARE,
        &[
            ("DATABRICKS_CONFIG_FILE", file),
            ("DATABRICKS_CONFIG_PROFILE", "two"),
        ],
    );
    let named = format!(
        "{BARE}auth = {{ type = \"profile\", profile = \"two\", config_file = {file:?} }}\n"
    );
    // What else stands in the environment is not mixed in.
    let by_setting = auth(&named, &[("DATABRICKS_TOKEN", "other")]);
    for auth in [by_variable, by_file, by_setting] {
        let Auth::OauthM2m {
            client_id,
            client_secret,
        } = auth
        else {
            panic!("another kind")
        };
        assert_eq!(
            (client_id.as_str(), secret(&client_secret).as_str()),
            ("app", "s=e;c")
        );
    }

    fails(
        BARE,
        &[home, ("DATABRICKS_CONFIG_PROFILE", "three")],
        &["DATABRICKS_CONFIG_PROFILE", "no profile [three]"],
    );
    let empty = named.replace("\"two\"", "\"empty\"") + "host = \"x.example\"\n";
    fails(&empty, &[], &["connections.prod.auth"]);
    // A profile's secrets are not shown to another workspace.
    let other = named.clone() + "host = \"three.example\"\n";
    fails(&other, &[], &["connections.prod.host", "another workspace"]);
    // A host in the settings, and no profile named: DEFAULT is not for it.
    let elsewhere = format!("{BARE}host = \"three.example\"\n");
    fails(&elsewhere, &[home], &["connections.prod.auth"]);
}

#[test]
fn a_proxys_url_is_checked_and_not_shown() {
    let with = |line: &str| format!("{PROD}{line}\n");
    let text = with("proxy = \"http://user:hunter2@proxy.example:3128\"\ntls.ca_file = \"/ca\"");
    let settings = load_text(&text, &[]).unwrap();
    let Reach { ca_file, proxy } = &prod(&settings).reach;
    assert_eq!(ca_file.as_deref(), Some(Path::new("/ca")));
    assert_eq!(
        secret(proxy.as_ref().unwrap()),
        "http://user:hunter2@proxy.example:3128"
    );
    assert!(!format!("{settings:?}").contains(SECRET));
    for (line, words) in [
        (
            "proxy = \"user:hunter2@proxy\"",
            ["connections.prod.proxy", "scheme"],
        ),
        (
            "proxy = \"socks5://user:hunter2@proxy\"",
            ["connections.prod.proxy", "scheme"],
        ),
        ("proxy = \"\"", ["connections.prod.proxy", "empty"]),
        (
            "proxy = \"http://a\"\nproxy_file = \"/f\"",
            ["connections.prod.proxy", "only one of"],
        ),
        (
            "tls.ca = \"/f\"",
            ["connections.prod.tls.ca", "unknown field"],
        ),
        (
            "tls.ca_file = \"${CREDENTIALS_DIRECTORY}/ca\"",
            ["tls.ca_file", "LoadCredential"],
        ),
    ] {
        fails(&with(line), &[], &words);
    }
}
