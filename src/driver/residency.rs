//! Where memory lies, from all that the driver says of it.

use crate::ffi::{
    ALLOCATION_PINNED, Attributes, Context, HANDLE_TYPE_NONE, INVALID_VALUE, LOCATION_DEVICE, MEMORY_DEVICE,
    MEMORY_HOST, MEMORY_UNIFIED, failure,
};
use crate::types::{DevicePtr, DriverError, MemoryKind, Residency, Span};

/// What the driver says of one allocation of the virtual-memory API.
struct Properties {
    pinned: bool,
    on_device: bool,
    id: i32,
    exportable: bool,
}

/// Asks where the byte lies: as an address, and as an allocation. Memory of our `own` must have answers to both.
pub(super) fn ask(context: &Context, ptr: DevicePtr, own: bool) -> Result<Residency, DriverError> {
    let attributes = context.attributes(ptr)?;
    let properties = context.allocation_properties(ptr)?.map(|found| Properties {
        pinned: found.kind == ALLOCATION_PINNED,
        on_device: found.location.kind == LOCATION_DEVICE,
        id: found.location.id,
        exportable: found.handle_types != HANDLE_TYPE_NONE,
    });
    // Memory of an engine's own allocator has no such allocation.
    if own && properties.is_none() {
        return Err(failure("cuMemRetainAllocationHandle", INVALID_VALUE));
    }
    let mut answer = read(&attributes, properties.as_ref());
    // What an engine mapped need not fill the range that it reserved; ours always does.
    if !own
        && properties.is_some()
        && let Some(mapping) = context.mapping(ptr)?
    {
        answer.range = common(answer.range, mapping);
    }
    Ok(answer)
}

/// The bytes that are in both.
fn common(one: Span, two: Span) -> Span {
    let ptr = one.ptr.max(two.ptr);
    let end = one.ptr.0.saturating_add(one.bytes).min(two.ptr.0.saturating_add(two.bytes));
    Span { ptr, bytes: end.saturating_sub(ptr.0) }
}

/// The low 32 bits, in which the driver writes its `int` answers.
fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(u32::MAX)
}

fn read(answer: &Attributes, properties: Option<&Properties>) -> Residency {
    let mut kind = match low(answer.memory_type) {
        _ if answer.managed != 0 => MemoryKind::Managed,
        MEMORY_DEVICE => MemoryKind::Device,
        MEMORY_HOST => MemoryKind::Host,
        MEMORY_UNIFIED => MemoryKind::Managed,
        _ => MemoryKind::Unknown,
    };
    // A negative ordinal is the driver's "none".
    let mut ordinal = Some(low(answer.ordinal)).filter(|ordinal| i32::try_from(*ordinal).is_ok());
    if kind == MemoryKind::Unknown {
        ordinal = None;
    }
    if let Some(properties) = properties {
        if kind == MemoryKind::Device && !(properties.pinned && properties.on_device) {
            kind = MemoryKind::Unknown; // the two answers contradict each other: none of them is a proof
        }
        ordinal = ordinal.filter(|ordinal| u32::try_from(properties.id) == Ok(*ordinal));
    }
    Residency {
        kind,
        host_mapped: answer.host_pointer != 0,
        exportable: answer.handle_types != 0 || properties.is_some_and(|properties| properties.exportable),
        ipc_capable: answer.ipc_capable != 0,
        ordinal,
        range: Span { ptr: DevicePtr(answer.range_start), bytes: answer.range_size },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_ranges_what_is_in_both_counts() {
        // covers: RES-2
        let span = |ptr, bytes| Span { ptr: DevicePtr(ptr), bytes };
        assert_eq!(common(span(100, 1000), span(300, 50)), span(300, 50));
        assert_eq!(common(span(300, 50), span(100, 220)), span(300, 20));
        assert_eq!(common(span(0, 10), span(10, 5)).bytes, 0);
        assert_eq!(common(span(50, u64::MAX), span(60, u64::MAX)), span(60, u64::MAX - 60));
    }

    #[test]
    fn an_empty_answer_is_no_answer_and_contradictions_are_none_either() {
        // covers: RES-2
        let good = Attributes {
            memory_type: u64::from(MEMORY_DEVICE),
            ordinal: 1,
            range_start: 4096,
            range_size: 8192,
            ..Attributes::default()
        };
        let ours = |id| Properties { pinned: true, on_device: true, id, exportable: false };
        assert_eq!(read(&Attributes::default(), None).kind, MemoryKind::Unknown);
        assert_eq!(read(&Attributes::default(), None).ordinal, None);
        let answer = read(&good, Some(&ours(1)));
        assert_eq!((answer.kind, answer.ordinal, answer.exportable), (MemoryKind::Device, Some(1), false));
        assert_eq!(read(&good, Some(&ours(0))).ordinal, None);
        assert_eq!(read(&Attributes { ordinal: 0xffff_fffe, ..good }, None).ordinal, None);
        assert_eq!(read(&good, Some(&Properties { pinned: false, ..ours(1) })).kind, MemoryKind::Unknown);
        assert_eq!(read(&good, Some(&Properties { on_device: false, ..ours(1) })).kind, MemoryKind::Unknown);
        assert_eq!(read(&Attributes { managed: 1, ..good }, Some(&ours(1))).kind, MemoryKind::Managed);
        assert_eq!(read(&Attributes { memory_type: 77, ..good }, None).kind, MemoryKind::Unknown);
        assert!(read(&Attributes { handle_types: 1, ..good }, None).exportable);
        assert!(read(&good, Some(&Properties { exportable: true, ..ours(1) })).exportable);
        assert!(read(&Attributes { ipc_capable: 1, ..good }, None).ipc_capable);
        assert!(read(&Attributes { host_pointer: 4096, ..good }, None).host_mapped);
    }
}
