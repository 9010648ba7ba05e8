//! Sets: a model of several shards, on one or several devices.
//!
//! Owns [`SealedSet`]. Set, index and count of each part are in its signed bytes; what is checked here is that
//! the parts at hand are the whole set, in order. The bytes are checked by each part's own execute.

use std::collections::HashSet;

use crate::error::{RefusalReason, VramError};
use crate::id::{ModelRef, SetId, ShardId};
use crate::manager::VramManager;
use crate::seal::SealedShard;

/// A complete set of live parts. Plain data: holding one permits nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SealedSet {
    /// The set.
    pub set: SetId,
    /// What model it is, if the seals say.
    pub model_ref: Option<ModelRef>,
    /// The parts, in order.
    pub parts: Vec<ShardId>,
    /// Bytes of all images together.
    pub bytes: u64,
}

impl SealedSet {
    /// Checks that shards, each with the manager that holds it, are all parts of one set that may be used now: same set, same
    /// model, in order, none missing, none twice, and none that [`begin`](VramManager::begin) would refuse before it looks at the
    /// bytes. Reads no VRAM; O(parts).
    ///
    /// # Errors
    /// `INVALID_PARAMS` naming the part that does not fit, or whose seal has expired; `SEAL_VERIFICATION_FAILED` and
    /// `STALE_HANDLE` for a seal that its manager does not honour, and for a part that failed a check; `MANAGER_STOPPED`.
    pub fn check(parts: &[(&VramManager, &SealedShard)]) -> Result<Self, VramError> {
        let refuse = |problem: String| VramError::InvalidParams {
            field: "set",
            problem: format!("{problem}; give the parts of one set, all of them, once each and in order"),
        };
        // Nothing is said of a seal before it is known whose it is.
        for (manager, shard) in parts {
            manager.admit_to_set(shard).map_err(|error| match error {
                VramError::SealRefused { reason: RefusalReason::Expired } => refuse(format!(
                    "has a part whose seal has expired: shard {} must be verified and sealed anew with `reseal`",
                    shard.id()
                )),
                error => error,
            })?;
        }
        let Some((_, first)) = parts.first() else {
            return Err(refuse("is empty".to_owned()));
        };
        let Some((set, _, count)) = first.part() else {
            return Err(refuse(format!("is none: shard {} was sealed alone", first.id())));
        };
        let mut found = Self { set, model_ref: first.model_ref().cloned(), parts: Vec::new(), bytes: 0 };
        let mut seen = HashSet::new();
        for (place, (_, shard)) in (0_u32..).zip(parts) {
            let id = shard.id();
            match shard.part() {
                None => return Err(refuse(format!("has a stranger: shard {id} was sealed alone"))),
                Some((other, ..)) if other != set => {
                    return Err(refuse(format!("has a stranger: shard {id} is of another set")));
                }
                Some((.., other)) if other != count => {
                    return Err(refuse(format!(
                        "is mixed: shard {id} says {other} parts, {} says {count}",
                        first.id()
                    )));
                }
                Some((_, index, _)) if !seen.insert(index) => {
                    return Err(refuse(format!("has part {index} twice: shard {id}")));
                }
                Some((_, index, _)) if index != place => {
                    return Err(refuse(format!(
                        "is out of order or incomplete: shard {id} is part {index}, at place {place}"
                    )));
                }
                Some(_) => {}
            }
            if shard.model_ref() != found.model_ref.as_ref() {
                return Err(refuse(format!("is mixed: shard {id} is of another model or version")));
            }
            found.bytes = found.bytes.saturating_add(shard.byte_len());
            found.parts.push(id.clone());
        }
        match u32::try_from(found.parts.len()) {
            Ok(given) if given == count => {
                // Last: what is wrong with a part says more than that its manager has stopped, perhaps because of it.
                parts.iter().try_for_each(|(manager, _)| manager.permit()).map(|()| found)
            }
            _ => Err(refuse(format!("is incomplete: {} of its {count} parts are given", found.parts.len()))),
        }
    }
}
