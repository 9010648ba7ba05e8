//! Faults to order: what can go wrong, on which call, and how often.

use crate::error::VramError;
use crate::ffi::mock::{Kind, Machine, RawFault};
use crate::types::DevicePtr;

/// The calls of the mock that can be ordered to fail, and that are counted; numbered as `cuda/include/vram_mock.h` numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MockCall {
    /// Any of the others.
    Any,
    /// Allocating device memory.
    Alloc,
    /// Freeing device memory.
    Free,
    /// A copy from host to device.
    CopyToDevice,
    /// A copy from device to host.
    CopyToHost,
    /// Filling device memory, as a wipe does.
    Fill,
    /// The digest kernel.
    Digest,
    /// The kernel that counts bytes which are not zero.
    CountNonzero,
    /// Waiting for a stream or an event.
    Synchronize,
    /// Asking how much memory is free.
    MemoryInfo,
    /// Asking where memory lies.
    Residency,
    /// Making a stream.
    Stream,
    /// Making, recording, waiting for (on a stream) or polling an event.
    Event,
    /// Changing the access to an allocation.
    Protect,
    /// Allocating a host staging buffer.
    HostAlloc,
    /// The keyed hash.
    Keyed,
}

/// How a residency answer is wrong; numbered from 1 as in `cuda/include/vram_mock.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResidencyLie {
    /// The memory lies in the host.
    Host,
    /// The memory is managed: it migrates.
    Managed,
    /// The host can address the memory.
    HostMapped,
    /// Another process could be given the memory.
    Exportable,
    /// The memory lies on another device.
    WrongOrdinal,
    /// Every answer is zero, as from a driver that did not fill them in.
    AllZero,
    /// The allocation is one byte shorter than it is.
    ShortRange,
}

/// Something that goes wrong to order. By itself it hits the next call that can meet it, once; [`nth`](Self::nth),
/// [`times`](Self::times) and [`always`](Self::always) say otherwise.
///
/// ```
/// use vram_residency::{Fault, MockCall, MockConfig};
/// let config = MockConfig::new();
/// config.fail(Fault::FillSkipped)?;                            // the next wipe does nothing
/// config.fail(Fault::call(MockCall::Alloc).nth(3))?;           // the third allocation from now fails
/// config.fail(Fault::MemoryInfoFree { free: 0 }.always())?;    // from now on, nothing is ever free
/// # Ok::<(), vram_residency::VramError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The call fails with a driver number (2: out of memory, 999: unknown, ...) and does nothing.
    Call {
        /// The call.
        call: MockCall,
        /// The driver's number; not 0.
        code: u32,
    },
    /// A copy to the device writes one bit wrongly.
    CopyToDeviceCorrupts {
        /// Which bit, modulo the length of the copy.
        bit: u64,
    },
    /// A copy to the host writes one bit wrongly.
    CopyToHostCorrupts {
        /// Which bit, modulo the length of the copy.
        bit: u64,
    },
    /// A copy to the device does not happen, and succeeds.
    CopyToDeviceSkipped,
    /// A copy to the host does not happen, and succeeds.
    CopyToHostSkipped,
    /// A fill does not happen, and succeeds.
    FillSkipped,
    /// A fill stops after half of its bytes, and succeeds.
    FillHalf,
    /// The digest kernel does not run: result and table stay as they were.
    DigestSkipped,
    /// The digest kernel covers half of the blocks, and says so.
    DigestShort,
    /// The digest kernel covers half of the blocks, and claims all.
    DigestShortClaimsFull,
    /// The digest kernel leaves the previous launch's result and table: an old nonce.
    DigestStale,
    /// The digest kernel leaves the previous launch's table under the new nonce and the full count: a lie that only a
    /// change of content since that launch can tell from the truth, and then only by its being missing.
    DigestReplayed,
    /// The keyed hash does not run: result and top stay as they were.
    KeyedSkipped,
    /// The zero proof does not run: its result stays as it was.
    CountSkipped,
    /// The zero proof finds nothing, whatever is there.
    CountFindsNothing,
    /// The driver reports this many bytes free.
    MemoryInfoFree {
        /// Bytes.
        free: u64,
    },
    /// The driver's answer about an allocation is wrong.
    Residency(ResidencyLie),
    /// A change of access takes effect, but the driver does not confirm it.
    ProtectUnconfirmed,
    /// A change of access is confirmed, but does not take effect.
    ProtectSkipped,
    /// Memory changes in one bit while its access is changed.
    ProtectCorrupts {
        /// Which bit, modulo the length of the allocation.
        bit: u64,
    },
    /// This call, and every later one on the device, fails: the context is dead. No queued operation runs any more.
    Sticky,
}

impl Fault {
    /// The call fails for an unknown reason (999).
    #[must_use]
    pub const fn call(call: MockCall) -> Self {
        Self::Call { call, code: 999 }
    }

    /// Hits the `nth` matching call from now; 1 is the next.
    #[must_use]
    pub const fn nth(self, nth: u64) -> FaultOrder {
        FaultOrder { fault: self, nth, times: 1 }
    }

    /// Hits so many consecutive matching calls.
    #[must_use]
    pub const fn times(self, times: u64) -> FaultOrder {
        FaultOrder { fault: self, nth: 1, times }
    }

    /// Hits every matching call from now on.
    #[must_use]
    pub const fn always(self) -> FaultOrder {
        self.times(u64::MAX)
    }

    #[allow(clippy::as_conversions, reason = "the discriminants of enums that cross to C")]
    pub(super) fn raw(self) -> RawFault {
        use MockCall::{CopyToDevice, CopyToHost, CountNonzero, Digest, Fill, Protect};
        let (kind, call, code, value) = match self {
            Self::Call { call, code } => (Kind::Fail, call, code, 0),
            Self::CopyToDeviceCorrupts { bit } => (Kind::Corrupt, CopyToDevice, 0, bit),
            Self::CopyToHostCorrupts { bit } => (Kind::Corrupt, CopyToHost, 0, bit),
            Self::CopyToDeviceSkipped => (Kind::Skip, CopyToDevice, 0, 0),
            Self::CopyToHostSkipped => (Kind::Skip, CopyToHost, 0, 0),
            Self::FillSkipped => (Kind::Skip, Fill, 0, 0),
            Self::FillHalf => (Kind::Half, Fill, 0, 0),
            Self::DigestSkipped => (Kind::Skip, Digest, 0, 0),
            Self::DigestShort => (Kind::DigestShort, Digest, 0, 0),
            Self::DigestShortClaimsFull => (Kind::DigestShortLies, Digest, 0, 0),
            Self::DigestStale => (Kind::DigestStale, Digest, 0, 0),
            Self::DigestReplayed => (Kind::DigestReplayed, Digest, 0, 0),
            Self::KeyedSkipped => (Kind::Skip, MockCall::Keyed, 0, 0),
            Self::CountSkipped => (Kind::Skip, CountNonzero, 0, 0),
            Self::CountFindsNothing => (Kind::CountZero, CountNonzero, 0, 0),
            Self::MemoryInfoFree { free } => (Kind::FreeBytes, MockCall::MemoryInfo, 0, free),
            Self::Residency(lie) => (Kind::ResidencyLie, MockCall::Residency, 0, (lie as u64).saturating_add(1)),
            Self::ProtectUnconfirmed => (Kind::Unconfirmed, Protect, 0, 0),
            Self::ProtectSkipped => (Kind::Skip, Protect, 0, 0),
            Self::ProtectCorrupts { bit } => (Kind::Corrupt, Protect, 0, bit),
            Self::Sticky => (Kind::Sticky, MockCall::Any, 719, 0),
        };
        RawFault { kind, call: call as u32, code, reserved: 0, value, nth: 1, times: 1 }
    }
}

/// A [`Fault`] with the calls that it hits: `times` consecutive ones, beginning with the `nth` from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultOrder {
    fault: Fault,
    nth: u64,
    times: u64,
}

impl FaultOrder {
    /// Begins with the `nth` matching call from now; 1 is the next.
    #[must_use]
    pub const fn nth(self, nth: u64) -> Self {
        Self { nth, ..self }
    }

    /// Hits so many consecutive matching calls.
    #[must_use]
    pub const fn times(self, times: u64) -> Self {
        Self { times, ..self }
    }

    /// Hits every matching call from its first on.
    #[must_use]
    pub const fn always(self) -> Self {
        self.times(u64::MAX)
    }
}

impl From<Fault> for FaultOrder {
    fn from(fault: Fault) -> Self {
        fault.nth(1)
    }
}

/// Has one bit change at rest before the `nth` call from now.
pub(super) fn flip(machine: &Machine, ordinal: u32, at: DevicePtr, bit: u8, nth: u64) -> Result<(), VramError> {
    let code = u32::from(bit);
    Ok(machine
        .order(ordinal, &RawFault { kind: Kind::Flip, call: 0, code, reserved: 0, value: at.0, nth, times: 1 })?)
}

pub(super) fn order(machine: &Machine, ordinal: u32, order: FaultOrder) -> Result<(), VramError> {
    let FaultOrder { fault, nth, times } = order;
    if nth == 0 || times == 0 || matches!(fault, Fault::Call { code: 0, .. }) {
        return Err(VramError::InvalidParams {
            field: "fault",
            problem: "can never happen: calls count from 1, at least one must be hit, and code 0 is no failure"
                .to_owned(),
        });
    }
    Ok(machine.order(ordinal, &RawFault { nth, times, ..fault.raw() })?)
}
