//! Adoption: memory that an engine allocated, sealed and verified where it lies.
//!
//! Owns [`Adopted`] and [`AdoptError`]. The record co-owns the engine's value until release, so the memory
//! cannot go while it is under seal. What is promised is weaker than for memory of our own: the engine may write to its memory
//! at any time (the next check finds it), other processes may have been given it, and it is wiped only where the caller allows.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use crate::digest::layout::Layout;
use crate::error::VramError;
use crate::manager::inner::Inner;
use crate::memory::{ImageMap, ShardMemory};
use crate::seal::SealedShard;
use crate::spec::{Expectation, ShardSpec, Wanted, judge_layout};
use crate::types::{Access, DigestKind, RawRegion, Span};

mod layout;

/// An engine's value whose memory is under seal. Dropping it leaves the shard live and the memory allocated: the record owns
/// the value too, until the shard is released.
#[derive(Debug)]
pub struct Adopted<M> {
    shard: SealedShard,
    owner: Arc<M>,
}

impl<M> Adopted<M> {
    /// The seal.
    #[must_use]
    pub const fn shard(&self) -> &SealedShard {
        &self.shard
    }

    /// The engine's value. What it computes counts only inside an execution.
    #[must_use]
    pub fn owner(&self) -> &M {
        &self.owner
    }

    /// Takes the value back, once the shard has been released.
    ///
    /// # Errors
    /// `self`, while the record or residue of a failed wipe still owns it too.
    pub fn into_owner(self) -> Result<M, Self> {
        let Self { shard, owner } = self;
        Arc::try_unwrap(owner).map_err(|owner| Self { shard, owner })
    }
}

/// An adoption that was refused, with what it would have taken.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct AdoptError<M> {
    /// Why.
    #[source]
    pub error: VramError,
    /// The engine's value, untouched.
    pub owner: M,
}

/// Regions known to the driver; made unknown again when dropped.
struct Registered<'a> {
    inner: &'a Inner,
    spans: Vec<Span>,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        for span in self.spans.drain(..) {
            self.inner.device.unregister(span);
        }
    }
}

impl Inner {
    /// Seals an engine's memory; see `VramManager::adopt`.
    ///
    /// # Safety
    /// As there.
    #[allow(unsafe_code, reason = "passes its caller's promise on to the driver")]
    pub(crate) unsafe fn adopt<M: Send + Sync + 'static>(
        &self,
        spec: &ShardSpec,
        owner: M,
        regions: &[RawRegion],
    ) -> Result<Adopted<M>, AdoptError<M>> {
        let owner = Arc::new(owner);
        let _underway = self.shards.underway(); // ends before the owner is dropped, should this unwind
        let held: Arc<dyn Any + Send + Sync> = Arc::<M>::clone(&owner);
        // SAFETY: the caller of this function vouches for the regions, in the words of `VramManager::adopt`.
        let sealed = unsafe { self.try_adopt(spec, held, regions) };
        match self.report_sealed(&spec.id, sealed) {
            Ok(shard) => Ok(Adopted { shard, owner }),
            Err(error) => match Arc::try_unwrap(owner) {
                Ok(owner) => Err(AdoptError { error, owner }),
                // Every path of a failed adoption lets go of the value, on this thread: no other has it before the shard is
                // live, and what is live was adopted. Were one to forget, failing to give it back would be worse than the seal.
                Err(owner) => Err(AdoptError { error, owner: wait_for(owner) }),
            },
        }
    }

    /// # Safety
    /// As [`adopt`](Self::adopt).
    #[allow(unsafe_code, reason = "passes its caller's promise on to the driver")]
    unsafe fn try_adopt(
        &self,
        spec: &ShardSpec,
        owner: Arc<dyn Any + Send + Sync>,
        regions: &[RawRegion],
    ) -> Result<SealedShard, VramError> {
        let started = Instant::now();
        self.reap();
        self.permit()?;
        self.policy.admit_origin(spec.origin()).inspect_err(|error| self.report_violation(error))?;
        spec.set_part()?;
        let spans = judge(regions)?;
        let lengths: Vec<u64> = spans.iter().map(|span| span.bytes).collect();
        let params = self.device.params();
        let layout = layout::of(params, regions)?;
        let vouched = self.vouched_for(spec, &layout)?;
        let image =
            ImageMap::new(params, &spans).ok_or(VramError::Internal { what: "adopted regions form no image" })?;
        let claim = self.shards.claim(&spec.id, spans.clone())?;
        let mut registered = Registered { inner: self, spans: Vec::with_capacity(spans.len()) };
        for (span, region) in spans.into_iter().zip(regions) {
            let written = region.writable || spec.wipe_adopted;
            let access = if written { Access::ReadWrite } else { Access::ReadOnly };
            // SAFETY: the caller vouches for every region until the shard is released, and for writes to those that may be
            // written; the spans are theirs, unchanged, one for each region.
            unsafe { self.device.register(span, access) }.map_err(foreign)?;
            registered.spans.push(span);
        }
        let (_, check_room) = self.rooms(image.bytes(), image.spans().count())?;
        let bytes = lengths.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
        let mut held = self.allocate(&spec.id, Some(check_room), || {
            ShardMemory::adopt(&self.device, image, spec.wipe_adopted, owner, check_room)
        })?;
        registered.spans.clear(); // from here on the memory makes them unknown again
        held.count_adopted(bytes);
        let sealed = self.expect(held.memory()?, spec, vouched)?;
        self.publish(claim, held, spec, sealed, layout, started)
    }

    /// The digest that someone vouched for of memory in this layout.
    fn vouched_for(&self, spec: &ShardSpec, layout: &Layout) -> Result<Option<Wanted>, VramError> {
        match &spec.expected {
            None => Ok(None),
            Some(Expectation::Image { digest, layout: wanted }) => {
                judge_layout(*wanted, layout.digest()).map_err(|mismatch| self.not_expected(spec, mismatch))?;
                Ok(Some(Wanted { of: DigestKind::Image, digest: *digest }))
            }
            Some(_) => Err(VramError::InvalidParams {
                field: "expectation",
                problem: "is of a file, and adoption reads none; give Expectation::Image, with the digests of image and layout"
                    .to_owned(),
            }),
        }
    }
}

/// The driver's word that it does not know the memory, as the caller's mistake.
fn foreign(error: crate::types::DriverError) -> VramError {
    match error.kind {
        crate::types::DriverErrorKind::InvalidValue => VramError::InvalidParams {
            field: "regions",
            problem: "are not memory of this device that nobody else has adopted; give memory that the engine allocated on it, once"
                .to_owned(),
        },
        _ => VramError::Device(error),
    }
}

fn judge(regions: &[RawRegion]) -> Result<Vec<Span>, VramError> {
    let refuse = |problem: String| VramError::InvalidParams { field: "regions", problem };
    if regions.is_empty() {
        return Err(refuse("are none; give at least one".to_owned()));
    }
    let mut spans = Vec::with_capacity(regions.len());
    for (at, region) in regions.iter().enumerate() {
        spans.push(region.span().map_err(|problem| {
            refuse(format!("are unusable: number {at} {problem}; give what the engine allocated"))
        })?);
    }
    let mut sorted: Vec<(usize, Span)> = spans.iter().copied().enumerate().collect();
    sorted.sort_unstable_by_key(|(_, span)| span.ptr);
    for pair in sorted.windows(2) {
        if let [(first, one), (second, two)] = pair
            && one.overlaps(*two)
        {
            return Err(refuse(format!("overlap: numbers {first} and {second}; give each byte once")));
        }
    }
    Ok(spans)
}

fn wait_for<M>(mut owner: Arc<M>) -> M {
    loop {
        match Arc::try_unwrap(owner) {
            Ok(owner) => return owner,
            Err(shared) => owner = shared,
        }
        crate::sync::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::DevicePtr;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn overlaps_are_judged_as_byte_by_byte(places in prop::collection::vec((1_u64..60, 0_u64..20), 0..7)) {
            // covers: RES-9 ASR-2
            let regions: Vec<RawRegion> = places.iter().map(|(ptr, bytes)| RawRegion::new(*ptr, *bytes)).collect();
            let mut taken = std::collections::HashSet::new();
            let apart = places.iter().all(|(ptr, bytes)| (*ptr..ptr.saturating_add(*bytes)).all(|at| taken.insert(at)));
            let sound = apart && !places.is_empty() && places.iter().all(|(_, bytes)| *bytes > 0);
            match judge(&regions) {
                Ok(spans) => {
                    prop_assert!(sound);
                    let judged: Vec<(u64, u64)> = spans.iter().map(|span| (span.ptr.0, span.bytes)).collect();
                    prop_assert_eq!(judged, places, "in the caller's order");
                }
                Err(error) => {
                    prop_assert!(!sound, "{error}");
                    let named = matches!(error, VramError::InvalidParams { field: "regions", .. });
                    prop_assert!(named);
                }
            }
        }
    }

    #[test]
    fn regions_at_the_edges_of_the_address_space() {
        // covers: RES-7 RES-9
        const EDGES: [u64; 9] =
            [0, 1, (1 << 32) - 1, 1 << 32, 130 << 30, (1 << 63) - 1, 1 << 63, u64::MAX - 1, u64::MAX];
        for ptr in EDGES {
            for bytes in EDGES {
                for element in EDGES {
                    let region = RawRegion::new(ptr, bytes).element_bytes(element);
                    let inside = ptr > 0 && bytes > 0 && u128::from(ptr) + u128::from(bytes) < 1 << 64;
                    let whole = element > 0 && ptr.is_multiple_of(element) && bytes.is_multiple_of(element);
                    match judge(&[region]) {
                        Ok(spans) => {
                            assert!(inside && whole);
                            assert_eq!(spans, [Span { ptr: DevicePtr(ptr), bytes }]);
                        }
                        Err(error) => {
                            assert!(!(inside && whole), "{ptr} {bytes} {element}: {error}");
                            assert!(matches!(error, VramError::InvalidParams { field: "regions", .. }), "{error}");
                        }
                    }
                }
            }
        }
        let large = [RawRegion::new(1 << 40, 130 << 30), RawRegion::new((1 << 40) + (130 << 30), 1 << 63)];
        assert_eq!(judge(&large).map(|spans| spans.len()).ok(), Some(2));
        let met = [RawRegion::new(1 << 40, (130 << 30) + 1), RawRegion::new((1 << 40) + (130 << 30), 1)];
        assert!(judge(&met).is_err());
    }
}
