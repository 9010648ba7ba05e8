use std::fmt::Display;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;
use vram_residency::{Digest, ErrorCode, ModelRef, ShardId, VramError, WorkerId};

use crate::{assert_presentable, reference};

/// A text is a digest, or a name, exactly when the rule says so; whatever is accepted is shown as it was given; a refusal names
/// the field and, of a digest, the first bad character.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    judge_all(text);
    // The same as one name of the length that the first byte says, for the rules that a long name can break.
    let Some((&length, rest)) = data.split_first() else { return };
    let name: String = rest.iter().take(4).map(|&byte| char::from(byte)).collect();
    judge_all(&format!("{name:n<0$}", usize::from(length) + 3));
}

fn judge_all(text: &str) {
    let bad = reference::first_bad_of_digest(text);
    if let Some(error) = judge::<Digest>(text, bad.is_none(), "digest") {
        let place = format!("character {}", bad.unwrap());
        let found = error.split(|c: char| !c.is_ascii_alphanumeric() && c != ' ').any(|part| part.contains(&place));
        assert!(found, "{place} is not in {error:?}");
    }
    let name = reference::is_name(text.as_bytes());
    judge::<ShardId>(text, name, "shard id");
    judge::<WorkerId>(text, name, "worker id");
    judge::<ModelRef>(text, name, "model ref");
}

/// Parses the text in every way there is. The message of a refusal, if it is one.
fn judge<T>(text: &str, allowed: bool, field: &str) -> Option<String>
where
    T: FromStr<Err = VramError> + TryFrom<String, Error = VramError> + Display + Serialize + DeserializeOwned + Eq,
{
    let json = serde_json::to_string(text).unwrap();
    let (parsed, owned) = (text.parse::<T>(), T::try_from(text.to_owned()));
    let read = serde_json::from_str::<T>(&json);
    match (parsed, owned, read) {
        (Ok(parsed), Ok(owned), Ok(read)) => {
            assert!(allowed, "accepted as {field}: {text:?}");
            assert!(parsed == owned && parsed == read);
            assert_eq!(parsed.to_string(), text);
            assert_eq!(serde_json::to_string(&parsed).unwrap(), json);
            None
        }
        (Err(parsed), Err(owned), Err(_)) => {
            assert!(!allowed, "refused as {field} ({parsed}): {text:?}");
            assert_eq!(parsed.to_string(), owned.to_string());
            assert!(matches!(parsed, VramError::InvalidParams { field: named, .. } if named == field), "{parsed:?}");
            assert_eq!(parsed.code(), ErrorCode::InvalidParams);
            assert_presentable(&parsed.to_string());
            Some(parsed.to_string())
        }
        _ => panic!("the ways to parse a {field} do not agree on {text:?}"),
    }
}
