//! Secrets in files: rotated, revoked, missing, empty.

use std::fs;
use std::time::Duration;

use super::Ground;
use crate::config::{Auth, SecretSource};

#[tokio::test]
async fn a_secret_that_was_rotated_is_used_and_one_that_was_revoked_is_told() {
    let ground = Ground::new().await;
    for auth in [ground.m2m(), ground.federation(), ground.principal(false)] {
        ground.allow("s3cret", "a.b.c").await;
        ground.file("secret", "s3cret");
        ground.file("subject", "a.b.c");
        let credentials = ground.credentials(&auth);
        let first = credentials.token().await.unwrap();
        ground.allow("n3wer", "d.e.f").await;
        assert_eq!(credentials.other_than(&first).await, None);
        let told = credentials.trouble().unwrap();
        assert!(told.contains("no token from 127.0.0.1"), "{told}");
        assert!(told.contains("still valid"), "{told}");
        for secret in ["s3cret", "a.b.c"] {
            assert!(!told.contains(secret), "{told}");
        }

        ground.file("secret", "n3wer\n");
        ground.file("subject", "d.e.f\n");
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(10)).await;
        tokio::time::resume();
        let second = credentials.other_than(&first).await.unwrap();
        assert_eq!(ground.me(&second).await, 200);
        assert_eq!(credentials.trouble(), None);
    }
}

#[tokio::test]
async fn a_secret_that_is_missing_or_empty_says_which_file() {
    let ground = Ground::new().await;
    let empty = ground.file("empty", " \n");
    let missing = SecretSource::File(ground.path("missing"));
    for (source, words) in [(&empty, "is empty"), (&missing, "can't be read")] {
        for auth in [
            Auth::Pat(source.clone()),
            Auth::OauthM2m {
                client_id: "app".to_owned(),
                client_secret: source.clone(),
            },
            Auth::Federation {
                token: source.clone(),
                client_id: None,
            },
        ] {
            let credentials = ground.credentials(&auth);
            let error = credentials.token().await.unwrap_err();
            let SecretSource::File(path) = source else {
                unreachable!("both are files")
            };
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert!(error.contains(words), "{error}");
            let setting = match auth {
                Auth::OauthM2m { .. } => "auth.client_secret_file: ",
                _ => "auth.token_file: ",
            };
            assert!(error.starts_with(setting), "{error}");
            assert_eq!(credentials.trouble(), Some(error));
        }
    }
}

#[tokio::test]
async fn a_token_file_that_vanishes_leaves_the_token_at_work_and_is_told() {
    let ground = Ground::new().await;
    let credentials = ground.credentials(&Auth::Pat(ground.file("token", "n0body")));
    let token = credentials.token().await.unwrap();
    fs::remove_file(ground.path("token")).unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    assert_eq!(credentials.token().await.as_ref(), Ok(&token));
    assert!(
        credentials
            .trouble()
            .unwrap()
            .contains("token can't be read")
    );
    tokio::time::advance(Duration::from_secs(3)).await;
    ground.file("token", "n3w");
    let new = credentials.token().await.unwrap();
    assert_ne!(new, token);
    assert_eq!(credentials.trouble(), None);
}

#[tokio::test]
async fn a_rotated_file_is_read_when_the_old_token_is_refused() {
    let ground = Ground::new().await;
    let credentials = ground.credentials(&Auth::Pat(ground.file("token", "first")));
    let first = credentials.token().await.unwrap();
    assert_eq!(credentials.other_than(&first).await, None);
    ground.file("token", "second");
    assert_eq!(credentials.token().await.as_ref(), Ok(&first));
    let second = credentials.other_than(&first).await.unwrap();
    let values: Vec<_> = second.headers().map(|(_, value)| value).collect();
    assert_eq!(values, ["Bearer second"]);
    assert!(
        values
            .iter()
            .all(reqwest::header::HeaderValue::is_sensitive)
    );
    // Another caller that was refused with the first one is given the second one at once.
    assert_eq!(credentials.other_than(&first).await, Some(second));
}
