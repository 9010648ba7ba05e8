//! What the caller says of a shard before it is sealed, and of a check before it is made.
//!
//! Owns [`ShardSpec`], [`Expectation`] and [`ExecuteOptions`]: requests, judged by those who carry them out.

use std::time::Duration;

use crate::error::VramError;
use crate::id::{ModelRef, SetId, ShardId};
use crate::seal::SetPart;
use crate::types::Origin;

mod check;
mod expectation;
mod options;

pub use check::Check;
pub use expectation::Expectation;
pub(crate) use expectation::{Mismatch, Wanted, judge_layout};
pub use options::ExecuteOptions;

/// A shard to be: its name, and what is known and wanted of it.
///
/// ```
/// use vram_residency::{Expectation, ShardId, ShardSpec, TreeParams, digest_bytes};
/// # fn main() -> Result<(), vram_residency::VramError> {
/// let vouched_for = digest_bytes(&TreeParams::default(), b"weights");
/// let spec = ShardSpec::new(ShardId::new("model-a")?).expect(Expectation::FsVerity(vouched_for));
/// # let _ = spec;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct ShardSpec {
    pub(crate) id: ShardId,
    pub(crate) model_ref: Option<ModelRef>,
    pub(crate) expected: Option<Expectation>,
    pub(crate) part: Option<(SetId, u32, u32)>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) wipe_adopted: bool,
}

impl ShardSpec {
    /// A shard of this name.
    pub const fn new(id: ShardId) -> Self {
        Self { id, model_ref: None, expected: None, part: None, max_age: None, wipe_adopted: false }
    }

    /// What someone vouched for. The shard is sealed only if the source is that, in the one pass that reads it, and VRAM then has
    /// the image that was read. An image whose digest the expectation gives (a file as it is) is not hashed on the host.
    pub fn expect(mut self, expectation: Expectation) -> Self {
        self.expected = Some(expectation);
        self
    }

    /// What model the shard belongs to: signed, not interpreted, but one for all parts of a set.
    pub fn model_ref(mut self, model_ref: ModelRef) -> Self {
        self.model_ref = Some(model_ref);
        self
    }

    /// Makes the shard part `index` (from 0) of the `count` parts of a set.
    pub const fn part(mut self, set: SetId, index: u32, count: u32) -> Self {
        self.part = Some((set, index, count));
        self
    }

    setters! {
        /// How long executions may begin under the seal, by the process's monotonic clock; for ever when not set.
        /// [`VramManager::reseal`](crate::VramManager::reseal) begins anew.
        fn max_age(most: Duration) => max_age = Some(most);
        /// Whether adopted memory is wiped on release, before its owner gets it back. It must then be memory that may be
        /// written, as [`VramManager::adopt`](crate::VramManager::adopt) says.
        fn wipe_adopted(wipe: bool) => wipe_adopted = wipe;
    }

    pub(crate) const fn origin(&self) -> Origin {
        if self.expected.is_some() { Origin::Expected } else { Origin::Measured }
    }

    pub(crate) fn set_part(&self) -> Result<Option<SetPart>, VramError> {
        match self.part {
            Some((_, index, count)) if index >= count => Err(VramError::InvalidParams {
                field: "part",
                problem: format!(
                    "{index} of {count} does not exist; parts count from 0, to one less than their number"
                ),
            }),
            Some((set, index, count)) => Ok(Some(SetPart { set, index, count })),
            None => Ok(None),
        }
    }
}
