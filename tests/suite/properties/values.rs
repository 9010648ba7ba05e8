//! Properties of plain values: names and policies.

use super::*;

/// Text that is nearly a name: allowed characters, with one or two others now and then.
fn nearly_names() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[A-Za-z0-9._-]{0,20}",
        1 => "[A-Za-z0-9._-]{250,260}",
        2 => ("[A-Za-z0-9._-]{0,8}", any::<char>(), "[A-Za-z0-9._-]{0,8}").prop_map(|(a, b, c)| format!("{a}{b}{c}")),
        1 => any::<String>(),
    ]
}

/// The rule, written a second time.
fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=256).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('.') && !text.contains("..")
}

proptest! {
    #![proptest_config(thousand())]

    #[test]
    fn names_are_taken_by_one_rule_and_printed_as_they_were(text in nearly_names()) {
        // covers: VAL-1
        macro_rules! same {
            ($($name:ident)*) => {$(
                let (made, parsed) = ($name::new(text.clone()), text.parse::<$name>());
                prop_assert_eq!(made.is_ok(), is_name(&text), "{:?}", text);
                match made {
                    Ok(name) => {
                        prop_assert_eq!(name.to_string(), text.as_str());
                        prop_assert_eq!(&parsed.unwrap(), &name);
                        let json = serde_json::to_string(&name).unwrap();
                        prop_assert_eq!(serde_json::from_str::<$name>(&json).unwrap(), name);
                    }
                    Err(error) => {
                        prop_assert_eq!(error.code(), ErrorCode::InvalidParams);
                        // Quoted safely, and bounded.
                        let message = error.to_string();
                        prop_assert!(message.len() < 600 && !message.chars().any(char::is_control), "{message:?}");
                        prop_assert!(parsed.is_err());
                        prop_assert!(serde_json::from_value::<$name>(text.clone().into()).is_err());
                    }
                }
            )*};
        }
        same!(ShardId WorkerId ModelRef);
    }

    #[test]
    fn a_policy_names_exactly_what_is_laxer_than_production(rows in any::<[bool; 7]>(), audit in 0..3_usize, first in any::<bool>()) {
        let requirement = [AuditRequirement::BestEffort, AuditRequirement::Accepted, AuditRequirement::Durable][audit];
        let [device, digest, secret, environment, after, whole, often] = rows;
        let base = if first { Policy::production() } else { Policy::development() };
        let policy = base
            .require_real_device(device)
            .require_expected_digest(digest)
            .require_stored_secret(secret)
            .require_audit(requirement)
            .require_clean_environment(environment)
            .require_verify_after(after)
            .weakest_check(if whole { Check::Digest } else { Check::Rotating(2) })
            .full_check_within(often.then_some(Duration::from_secs(60)));
        let words = [
            (device, "mock"),
            (digest, "measured"),
            (secret, "secret"),
            (requirement == AuditRequirement::Durable, "durably"),
            (environment, "preload"),
            (after, "after the work"),
            (whole, "parts only"),
            (often, "a minute ago"),
        ];
        let relaxed = policy.relaxed();
        let wanted: Vec<&str> = words.iter().filter(|(kept, _)| !kept).map(|(_, word)| *word).collect();
        prop_assert_eq!(relaxed.len(), wanted.len());
        for (said, word) in relaxed.iter().zip(wanted) {
            prop_assert!(said.contains(word), "{said} says nothing of {word}");
        }
        prop_assert_eq!(policy.name(), if first { "production" } else { "development" });
    }
}
