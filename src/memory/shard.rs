//! A shard's memory: its image and the space that checks it.
//!
//! Owns [`ShardMemory`]. It is made whole or not at all, and ends in one of two ways: wiped, proven and given back, or kept out
//! of the pool for good. Dropping it without a wipe keeps it out of the pool.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::check::{CheckSizes, CheckSpace, DigestFailure};
use super::image::ImageMap;
use super::part::Part;
use super::region::{Protection, Region, Unallocated};
use super::{Device, DeviceFailure, Event, Stream};
use crate::digest::blocks::BlockHasher;
use crate::digest::keyed::{LevelKeys, Output};
use crate::digest::{Hash, TreeDigest};
use crate::driver::HostBuffer;
use crate::error::VramError;
use crate::panics::{aside, dispose};
use crate::types::{DevicePtr, DriverError, LaunchResult, Span};

enum Holding {
    /// Ours: wiped and freed.
    Owned(Region),
    /// An engine's: wiped only where its owner allows that, and given back, never freed.
    Adopted { wipe: bool, owner: Arc<dyn Any + Send + Sync>, registered: bool },
}

impl fmt::Debug for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owned(region) => f.debug_tuple("Owned").field(region).finish(),
            Self::Adopted { wipe, .. } => f.debug_struct("Adopted").field("wipe", wipe).finish_non_exhaustive(),
        }
    }
}

/// Engines' values that have been let go of. They are dropped with this: their drop is foreign code, which may call the manager, so
/// whoever holds this drops it when it holds no lock and its own call has ended.
#[derive(Default)]
pub(crate) struct Owners(Vec<Arc<dyn Any + Send + Sync>>);

impl Drop for Owners {
    fn drop(&mut self) {
        for owner in self.0.drain(..) {
            // The engine's own code. What it breaks is its own; the other owners come after it.
            if dispose(owner).is_err() {
                aside!(|| tracing::error!("the owner of adopted memory panicked while it was dropped"));
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct ShardMemory {
    device: Arc<Device>,
    stream: Stream,
    holding: Holding,
    check: Region,
    space: CheckSpace,
    proof: HostBuffer,
    image: ImageMap,
}

/// What a retired shard leaves behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Retired {
    pub(crate) wiped: u64,
    pub(crate) freed: u64,
    /// Bytes of an engine's memory given back as they are.
    pub(crate) left: u64,
}

/// Memory that was not given back, or not all of it.
#[derive(Debug)]
pub(crate) struct Unretired<M> {
    pub(crate) memory: Box<M>,
    pub(crate) failure: DeviceFailure,
    pub(crate) done: Retired,
}

const TOO_LARGE: VramError = VramError::Internal { what: "the image does not fit its region" };

impl ShardMemory {
    /// Allocates an image of `image_bytes` in `image_room` bytes, and `check_room` bytes for its checks (both in allocator
    /// units), proves both resident and zeroes them.
    ///
    /// # Errors
    /// The driver's, or `POLICY_VIOLATION` when residency is not proven. Nothing stays allocated.
    pub(crate) fn allocate(
        device: &Arc<Device>,
        image_bytes: u64,
        image_room: u64,
        check_room: u64,
    ) -> Result<Self, Unallocated> {
        if image_bytes > image_room {
            return Err(TOO_LARGE.into());
        }
        let region = Region::allocate(&device.driver, image_room)?;
        let span = region.span();
        let made = ImageMap::new(device.params(), &[Span { ptr: span.ptr, bytes: image_bytes }])
            .ok_or_else(|| TOO_LARGE.into())
            .and_then(|image| Self::around(device, image, check_room));
        let (stream, check, space, proof, image) = match made {
            Ok(parts) => parts,
            Err(unallocated) => return Err(unallocated.after(vec![region])),
        };
        let mut memory =
            Self { device: Arc::clone(device), stream, holding: Holding::Owned(region), check, space, proof, image };
        // Whatever others left there is gone before the first byte of ours arrives, the tail behind the image included.
        match memory.wipe() {
            Ok(_) => Ok(memory),
            Err(failure) => Err(memory.abandon(failure)),
        }
    }

    /// Takes an engine's memory, already known to the driver, with `check_room` bytes of ours for its checks.
    ///
    /// # Errors
    /// The driver's, or `POLICY_VIOLATION` when residency is not proven. Nothing stays allocated.
    pub(crate) fn adopt(
        device: &Arc<Device>,
        image: ImageMap,
        wipe: bool,
        owner: Arc<dyn Any + Send + Sync>,
        check_room: u64,
    ) -> Result<Self, Unallocated> {
        for span in image.spans() {
            super::region::prove_residency(&device.driver, span, super::region::Allocator::Engine)?;
        }
        let (stream, check, space, proof, image) = Self::around(device, image, check_room)?;
        let holding = Holding::Adopted { wipe, owner, registered: true };
        Ok(Self { device: Arc::clone(device), stream, holding, check, space, proof, image })
    }

    fn around(
        device: &Arc<Device>,
        image: ImageMap,
        check_room: u64,
    ) -> Result<(Stream, Region, CheckSpace, HostBuffer, ImageMap), Unallocated> {
        let sizes = CheckSizes::new(device.params(), image.bytes(), image.spans().count()).ok_or(TOO_LARGE)?;
        let stream = Stream::new(&device.driver)?;
        let proof = device.driver.host_buffer(LaunchResult::BYTES)?;
        let check = Region::allocate(&device.driver, check_room)?;
        match CheckSpace::new(device, &check, sizes) {
            Ok(space) => Ok((stream, check, space, proof, image)),
            Err(error) => Err(Unallocated::from(error).after(vec![check])),
        }
    }

    pub(crate) const fn image(&self) -> &ImageMap {
        &self.image
    }

    /// The image of owned memory: one span.
    pub(super) fn owned_image(&self) -> Result<Span, DeviceFailure> {
        match (&self.holding, self.image.spans().next()) {
            (Holding::Owned(_), Some(span)) => Ok(span),
            _ => Err(DeviceFailure::Unproven("upload into adopted memory")),
        }
    }

    pub(crate) const fn is_adopted(&self) -> bool {
        matches!(self.holding, Holding::Adopted { .. })
    }

    /// Lets go of an engine's memory as it is, before anything was sealed in it. Memory of our own stays.
    pub(crate) fn disown(&mut self, owners: &mut Owners) {
        if let Holding::Adopted { wipe, owner, registered } = &mut self.holding {
            *wipe = false;
            // Unknown to the driver first: once the owner is gone the memory may be, and nothing queued may touch it then.
            if std::mem::take(registered) {
                self.image.spans().for_each(|span| self.device.unregister(span));
            }
            owners.0.push(std::mem::replace(owner, Arc::new(())));
        }
    }

    /// Whether it holds an engine's value, whose memory is under seal.
    pub(crate) const fn holds_engine_memory(&self) -> bool {
        matches!(self.holding, Holding::Adopted { registered: true, .. })
    }

    /// Bytes of an engine's memory that will be given back as they are.
    fn left_unwiped(&self) -> u64 {
        match &self.holding {
            Holding::Adopted { wipe: false, .. } => {
                self.image.spans().fold(0, |sum: u64, span| sum.saturating_add(span.bytes))
            }
            _ => 0,
        }
    }

    /// The bytes that it still takes of our own share of the device.
    pub(crate) fn room(&self) -> u64 {
        let image = match &self.holding {
            Holding::Owned(region) => region.unfreed_bytes(),
            Holding::Adopted { .. } => 0,
        };
        image.saturating_add(self.check.unfreed_bytes())
    }

    /// Gives back, as far as the driver takes it, what nothing of ours was written to.
    fn abandon(mut self, failure: DeviceFailure) -> Unallocated {
        if let Err(error) = self.free(&mut Owners::default()) {
            aside!(|| tracing::error!(%error, "unused device memory could not be given back"));
        }
        Unallocated { error: failure.into(), stuck: self.room() }
    }

    pub(super) const fn result(&self) -> DevicePtr {
        self.check.span().ptr
    }

    pub(super) const fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(crate) fn prove_residency(&self) -> Result<(), VramError> {
        match &self.holding {
            Holding::Owned(region) => region.prove_residency()?,
            Holding::Adopted { .. } => {
                for span in self.image.spans() {
                    super::region::prove_residency(&self.device.driver, span, super::region::Allocator::Engine)?;
                }
            }
        }
        self.check.prove_residency()
    }

    /// Enqueues a digest of the image where it lies, behind `after` if that is given.
    pub(crate) fn launch_digest(&mut self, after: Option<&Event>) -> Result<(), DigestFailure> {
        if let Some(event) = after {
            self.device.driver.wait_event(self.stream.id, event)?;
        }
        let spans: Vec<Span> = self.image.spans().collect();
        self.space.launch(&self.device, &self.stream, &spans)
    }

    /// Waits for the digest that was launched last. Blocks; O(bytes) on the device.
    pub(crate) fn collect_digest(&mut self) -> Result<TreeDigest, DigestFailure> {
        self.space.collect(&self.device, &self.stream, self.image.bytes())
    }

    /// Enqueues a keyed hash of the image, behind `after` if that is given.
    pub(crate) fn launch_keyed(&mut self, key: &LevelKeys, after: Option<&Event>) -> Result<(), DigestFailure> {
        if let Some(event) = after {
            self.device.driver.wait_event(self.stream.id, event)?;
        }
        self.space.launch_keyed(&self.device, &self.stream, &self.image, key)
    }

    /// Waits for the keyed hash that was launched last: its top, a secret. Blocks; O(bytes) on the device.
    pub(crate) fn collect_keyed(&mut self) -> Result<Zeroizing<Output>, DigestFailure> {
        self.space.collect_keyed(&self.stream)
    }

    /// Enqueues a digest of a part of the image, behind `after` if that is given.
    pub(crate) fn launch_part(&mut self, part: &Part, after: Option<&Event>) -> Result<(), DigestFailure> {
        if let Some(event) = after {
            self.device.driver.wait_event(self.stream.id, event)?;
        }
        self.space.launch_part(&self.device, &self.stream, &self.image, part)
    }

    /// Waits for the part that was launched last: its entries of the level-1 table. Blocks; O(bytes of the part) on the device.
    pub(crate) fn collect_part(&mut self, part: &Part) -> Result<Vec<Hash>, DigestFailure> {
        let mut entries = self.space.collect_table(&self.stream)?;
        // To the device the part is an image of its own, and the table over a single block is that block's hash.
        if part.is_one_block_of_many(&self.device.params, self.image.bytes()) {
            let blocks = BlockHasher::new(&self.device.params);
            entries.iter_mut().for_each(|entry| *entry = blocks.hash(entry.as_slice()));
        }
        Ok(entries)
    }

    /// Digests the image where it lies. Blocks; O(bytes) on the device.
    pub(crate) fn digest(&mut self) -> Result<TreeDigest, DigestFailure> {
        self.launch_digest(None)?;
        self.collect_digest()
    }

    /// Maps an owned image read-only, where the driver can. The check space stays writable, for kernels write to it; an engine's
    /// memory is not ours to map. Waits for what is on its way into the image.
    ///
    /// # Errors
    /// The driver's; the memory can still be wiped.
    pub(crate) fn write_protect(&mut self) -> Result<Protection, DeviceFailure> {
        self.stream.synchronize()?;
        match &mut self.holding {
            Holding::Owned(region) => Ok(region.write_protect()?),
            Holding::Adopted { .. } => Ok(Protection::Writable),
        }
    }

    /// Whether the driver confirmed that the image is mapped read-only.
    pub(crate) fn is_write_protected(&self) -> bool {
        matches!(&self.holding, Holding::Owned(region) if region.protection() == Protection::ReadOnly)
    }

    /// Zeroes what may be zeroed and is still there, and proves it. Returns how many bytes.
    fn wipe(&mut self) -> Result<u64, DeviceFailure> {
        let Some(check) = self.check.unfreed() else { return Ok(0) };
        if let Holding::Owned(region) = &mut self.holding {
            region.make_writable()?; // a write to read-only memory would cost the context, and every other shard's wipe
        }
        let spans: Vec<Span> = match &self.holding {
            Holding::Owned(region) => region.unfreed().into_iter().collect(),
            Holding::Adopted { wipe: true, .. } => self.image.spans().collect(),
            Holding::Adopted { wipe: false, .. } => Vec::new(),
        };
        self.device.wipe(&self.stream, &mut self.proof, &spans, check)?;
        Ok(spans.iter().fold(check.bytes, |sum, span| sum.saturating_add(span.bytes)))
    }

    /// Gives everything back: ours to the driver, an engine's to its owner. What wipes come last, so that a later try finds it.
    fn free(&mut self, owners: &mut Owners) -> Result<(), DriverError> {
        match &mut self.holding {
            Holding::Owned(region) => region.free()?,
            Holding::Adopted { .. } => self.disown(owners),
        }
        self.check.free()
    }

    /// Makes writable, wipes, proves zero, and gives back: an engine's value to `owners`.
    ///
    /// # Errors
    /// The memory itself, with the reason and what was done so far, when it could not be proven zero, or the driver did not take
    /// it back.
    pub(crate) fn wipe_and_free(mut self, owners: &mut Owners) -> Result<Retired, Unretired<Self>> {
        // Work that was enqueued before may have failed; that is its caller's news, and must not be taken for the wipe's.
        let _earlier = self.stream.synchronize();
        let left = self.left_unwiped();
        let wiped = match self.wipe() {
            Ok(wiped) => wiped,
            Err(failure) => {
                return Err(Unretired { memory: Box::new(self), failure, done: Retired::default() });
            }
        };
        let before = self.room();
        let outcome = self.free(owners);
        let freed = before.saturating_sub(self.room());
        let done = Retired { wiped, left, freed };
        match outcome {
            Ok(()) => Ok(done),
            Err(error) => Err(Unretired { memory: Box::new(self), failure: error.into(), done }),
        }
    }
}

impl Drop for ShardMemory {
    fn drop(&mut self) {
        self.disown(&mut Owners::default());
    }
}
