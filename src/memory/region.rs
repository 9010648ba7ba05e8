//! Regions: device memory that is proven to be device memory.
//!
//! Owns [`Region`]. A region exists only after the driver's own answers placed all of it on this device and nowhere else. It
//! never frees itself: whoever proved it wiped calls [`Region::free`], and a region that is merely dropped stays allocated, for
//! bytes that may hold weights must not go back to the pool. What the driver does not take back is
//! never forgotten, nor is that a region may be mapped read-only: it is made writable before anything writes to it again.

use std::sync::Arc;

use crate::driver::Driver;
use crate::error::VramError;
use crate::panics::aside;
use crate::types::{Access, DriverError, DriverErrorKind, MemoryKind, Residency, Span};

/// One owned allocation.
#[derive(Debug)]
pub(crate) struct Region {
    driver: Arc<Driver>,
    span: Span,
    protection: Protection,
    freed: bool,
}

/// What is known of a region's mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protection {
    /// Writable, as every region is born, or because the driver does not offer anything else.
    Writable,
    /// A switch was asked for: the memory may be read-only, or not.
    Unconfirmed,
    /// Read-only: the driver made the switch and, asked again, said so.
    ReadOnly,
}

/// An allocation that failed, and whether the driver kept some of it: what it kept stays counted.
#[derive(Debug)]
pub(crate) struct Unallocated {
    /// Why.
    pub(crate) error: VramError,
    /// Bytes that the driver had given and did not take back.
    pub(crate) stuck: u64,
}

impl<E: Into<VramError>> From<E> for Unallocated {
    fn from(error: E) -> Self {
        Self { error: error.into(), stuck: 0 }
    }
}

impl Unallocated {
    /// Gives regions back that nothing of ours was ever written to.
    pub(super) fn after(mut self, regions: Vec<Region>) -> Self {
        for mut region in regions {
            if let Err(error) = region.free() {
                aside!(|| tracing::error!(%error, "unused device memory could not be given back"));
                self.stuck = self.stuck.saturating_add(region.span.bytes);
            }
        }
        self
    }
}

impl Region {
    /// Allocates `bytes` (a multiple of the granularity) and proves where they lie. Nothing stays allocated on failure.
    pub(super) fn allocate(driver: &Arc<Driver>, bytes: u64) -> Result<Self, Unallocated> {
        let span = Span { ptr: driver.alloc(bytes)?, bytes };
        let region = Self { span, driver: Arc::clone(driver), protection: Protection::Writable, freed: false };
        match region.prove_residency() {
            Ok(()) => Ok(region),
            Err(error) => Err(Unallocated::from(error).after(vec![region])),
        }
    }

    /// Asks the driver again where the region lies.
    pub(super) fn prove_residency(&self) -> Result<(), VramError> {
        prove_residency(&self.driver, self.span, Allocator::Ours)
    }

    /// Its place.
    pub(super) const fn span(&self) -> Span {
        self.span
    }

    /// Asks the driver to map it read-only. Nothing writes to it any more, nor is anything on its way that will.
    ///
    /// # Errors
    /// The driver's; then the memory may be read-only. That the driver does not offer it is none.
    pub(super) fn write_protect(&mut self) -> Result<Protection, DriverError> {
        self.protection = Protection::Unconfirmed; // also where the call fails: it may have switched all the same
        self.protection = match self.driver.protect(self.span, Access::ReadOnly) {
            Ok(true) => Protection::ReadOnly,
            Ok(false) => Protection::Unconfirmed,
            Err(DriverError { kind: DriverErrorKind::NotSupported, .. }) => Protection::Writable,
            Err(error) => return Err(error),
        };
        Ok(self.protection)
    }

    /// Makes it writable again, unless it always was. A switch that the driver made and cannot confirm is no failure: what is
    /// written next must prove itself anyway. What was switched once is switched back before every wipe, so that a wipe that
    /// is tried again does not rest on what the driver said the last time.
    pub(super) fn make_writable(&mut self) -> Result<(), DriverError> {
        if self.protection != Protection::Writable && !self.freed {
            self.protection = Protection::Unconfirmed;
            self.driver.protect(self.span, Access::ReadWrite)?;
        }
        Ok(())
    }

    /// What is known of its mapping.
    pub(super) const fn protection(&self) -> Protection {
        self.protection
    }

    /// Gives the memory back to the driver, unless that has happened. The caller proved it wiped, or never wrote to it.
    pub(super) fn free(&mut self) -> Result<(), DriverError> {
        if !self.freed {
            self.driver.free(self.span.ptr)?;
            self.freed = true;
        }
        Ok(())
    }

    /// Its length, as long as it is ours.
    pub(super) fn unfreed_bytes(&self) -> u64 {
        self.unfreed().map_or(0, |span| span.bytes)
    }

    /// Its place, as long as it is ours.
    pub(super) fn unfreed(&self) -> Option<Span> {
        (!self.freed).then_some(self.span)
    }
}

/// Who allocated a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allocator {
    /// This crate: nobody else can be given the memory in any way.
    Ours,
    /// An engine, with CUDA's ordinary calls, whose memory older calls for other processes all know. That alone is no refusal:
    /// the engine must have handed it out, and an engine is trusted not to.
    Engine,
}

/// Asks the driver where a span lies, and judges its answers.
pub(super) fn prove_residency(driver: &Driver, span: Span, allocator: Allocator) -> Result<(), VramError> {
    let answer = driver.residency(span.ptr)?;
    judge(&answer, span, driver.info().ordinal, allocator).map_err(|problem| {
        let remedy = match allocator {
            Allocator::Ours => "weights are not put there: look at the driver, and take the device out of service",
            Allocator::Engine => "adopt memory that the engine allocated on this device with cudaMalloc",
        };
        VramError::PolicyViolation { rule: "vram_only", problem: format!("{problem}; {remedy}") }
    })
}

/// Whether the driver's answers prove that all of `span` is memory of device `ordinal` and of nothing else.
fn judge(answer: &Residency, span: Span, ordinal: u32, allocator: Allocator) -> Result<(), &'static str> {
    match answer.kind {
        MemoryKind::Device => {}
        MemoryKind::Unknown => {
            return Err("the driver did not say where the memory lies; an empty answer proves nothing");
        }
        MemoryKind::Host => return Err("the driver placed the memory in host RAM"),
        MemoryKind::Managed => return Err("the driver made the memory managed, so it may migrate to host RAM"),
    }
    if answer.host_mapped {
        return Err("the memory is mapped into the host");
    }
    if answer.exportable || (answer.ipc_capable && allocator == Allocator::Ours) {
        return Err("the memory can be exported to other processes");
    }
    if answer.ordinal != Some(ordinal) {
        return Err("the memory lies on another device");
    }
    let covered = answer
        .range
        .ptr
        .checked_add(answer.range.bytes)
        .zip(span.ptr.checked_add(span.bytes))
        .is_some_and(|(range_end, span_end)| answer.range.ptr <= span.ptr && span_end <= range_end);
    if covered { Ok(()) } else { Err("the driver's allocation does not cover the whole region") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::DevicePtr;

    const SPAN: Span = Span { ptr: DevicePtr(4096), bytes: 8192 };
    const GOOD: Residency = Residency {
        kind: MemoryKind::Device,
        host_mapped: false,
        exportable: false,
        ipc_capable: false,
        ordinal: Some(1),
        range: SPAN,
    };

    #[test]
    fn only_a_complete_answer_is_a_proof() {
        // covers: RES-2
        assert_eq!(judge(&GOOD, SPAN, 1, Allocator::Ours), Ok(()));
        let wider = Span { ptr: DevicePtr(0), bytes: 1 << 20 };
        assert_eq!(judge(&Residency { range: wider, ..GOOD }, SPAN, 1, Allocator::Ours), Ok(()));
        let nothing = Span { ptr: DevicePtr(0), bytes: 0 };
        let short = Span { bytes: 8191, ..SPAN };
        let late = Span { ptr: DevicePtr(4097), bytes: 8192 };
        let wrapping = Span { ptr: DevicePtr(u64::MAX), bytes: 2 };
        for bad in [
            Residency { kind: MemoryKind::Unknown, ordinal: Some(0), range: nothing, ..GOOD },
            Residency { kind: MemoryKind::Host, ..GOOD },
            Residency { kind: MemoryKind::Managed, ..GOOD },
            Residency { host_mapped: true, ..GOOD },
            Residency { exportable: true, ..GOOD },
            Residency { ordinal: Some(0), ..GOOD },
            Residency { ordinal: None, ..GOOD },
            Residency { range: nothing, ..GOOD },
            Residency { range: short, ..GOOD },
            Residency { range: late, ..GOOD },
            Residency { range: wrapping, ..GOOD },
        ] {
            for allocator in [Allocator::Ours, Allocator::Engine] {
                assert!(judge(&bad, SPAN, 1, allocator).is_err(), "{bad:?}");
            }
        }
        let ordinary = Residency { ipc_capable: true, ..GOOD };
        assert!(judge(&ordinary, SPAN, 1, Allocator::Ours).is_err());
        assert_eq!(judge(&ordinary, SPAN, 1, Allocator::Engine), Ok(()));
    }
}
