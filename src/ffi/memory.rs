//! Device memory: owned mappings, and what the driver says of any address.

use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;

use super::context::Context;
use super::status::{INVALID_CONTEXT, INVALID_DEVICE, NOT_FOUND, NOT_PERMITTED, Status};
use super::types::{
    ACCESS_READ, ACCESS_READ_WRITE, ALLOCATION_PINNED, AccessDesc, AllocationProp, GRANULARITY_MINIMUM,
    HANDLE_TYPE_NONE, LOCATION_DEVICE, MAPPING_ATTRIBUTES, MemLocation, POINTER_ATTRIBUTES,
};
use super::{native, wide};
use crate::panics::aside;
use crate::types::{DevicePtr, DriverError, DriverErrorKind, Span};

/// The driver's answers about an address. All of them zero: it does not know the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) memory_type: u64,
    pub(crate) host_pointer: u64,
    pub(crate) managed: u64,
    pub(crate) ordinal: u64,
    pub(crate) ipc_capable: u64,
    pub(crate) range_start: u64,
    pub(crate) range_size: u64,
    pub(crate) handle_types: u64,
}

impl Context {
    fn location(&self) -> MemLocation {
        MemLocation { kind: LOCATION_DEVICE, id: self.device() }
    }

    /// What owned memory is: on this device, exportable to nobody.
    fn properties(&self) -> AllocationProp {
        AllocationProp {
            kind: ALLOCATION_PINNED,
            handle_types: HANDLE_TYPE_NONE,
            location: self.location(),
            ..AllocationProp::default()
        }
    }

    /// The allocation unit.
    pub(crate) fn granularity(&self) -> Result<u64, DriverError> {
        let _current = self.enter()?;
        let (mut out, wanted) = (0, self.properties());
        // SAFETY: the driver writes one size_t and reads one CUmemAllocationProp (layout asserted in types.rs), both locals.
        let status = unsafe { (self.table().granularity)(&raw mut out, &raw const wanted, GRANULARITY_MINIMUM) };
        status.check("cuMemGetAllocationGranularity")?;
        Ok(wide(out))
    }

    /// Asks about any address; the driver dereferences none.
    pub(crate) fn attributes(&self, ptr: DevicePtr) -> Result<Attributes, DriverError> {
        let status_and_answers = self.ask(&POINTER_ATTRIBUTES, ptr)?;
        let [memory_type, host_pointer, managed, ordinal, ipc_capable, range_start, range_size, handle_types] =
            match status_and_answers {
                // The documentation has both: zeros for an address that the driver does not know, and this number.
                (Status(INVALID_CONTEXT), _) => return Ok(Attributes::default()),
                (status, answers) => status.check("cuPointerGetAttributes").map(|()| answers)?,
            };
        Ok(Attributes {
            memory_type,
            host_pointer,
            managed,
            ordinal,
            ipc_capable,
            range_start,
            range_size,
            handle_types,
        })
    }

    /// The mapping of the virtual-memory API that the address lies in, if the driver says it.
    pub(crate) fn mapping(&self, ptr: DevicePtr) -> Result<Option<Span>, DriverError> {
        let (status, [start, bytes]) = self.ask(&MAPPING_ATTRIBUTES, ptr)?;
        Ok((status == Status(0) && bytes > 0).then_some(Span { ptr: DevicePtr(start), bytes }))
    }

    /// What the driver answers, each answer as the 64 bits that it begins with.
    fn ask<const N: usize>(&self, attributes: &[u32; N], ptr: DevicePtr) -> Result<(Status, [u64; N]), DriverError> {
        let _current = self.enter()?;
        // 16 bytes each: the widest answer is 8, and a narrower one leaves the rest zero.
        let mut answers = [[0_u64; 2]; N];
        let mut places = answers.each_mut().map(|answer| answer.as_mut_ptr().cast::<c_void>());
        let count = u32::try_from(N).unwrap_or(0);
        let (asked, places) = (attributes.as_ptr(), places.as_mut_ptr());
        // SAFETY: `asked` and `places` are arrays of `count` elements, and each place is a local of 16 bytes, more than any
        // of the attributes in types.rs is wide.
        let status = unsafe { (self.table().pointer_attributes)(count, asked, places, ptr.0) };
        Ok((status, answers.map(|[value, _]| value)))
    }

    /// The properties of the allocation behind an address of the virtual-memory API; `Ok(None)` for other memory.
    pub(crate) fn allocation_properties(&self, ptr: DevicePtr) -> Result<Option<AllocationProp>, DriverError> {
        let _current = self.enter()?;
        let mut handle = 0;
        // SAFETY: the driver writes one handle to the local; the address is a number that it looks up.
        let status = unsafe { (self.table().retain_handle)(&raw mut handle, native(ptr.0)) };
        match status.check("cuMemRetainAllocationHandle") {
            // The documentation names the first only.
            Err(error) if not_offered(&error) || matches!(error.code, NOT_FOUND | NOT_PERMITTED) => return Ok(None),
            retained => retained?,
        }
        let mut out = AllocationProp::default();
        // SAFETY: the driver fills one CUmemAllocationProp (layout asserted in types.rs) of plain integers, any value of
        // which is valid; the handle is live, because it was retained above and is released below.
        let status = unsafe { (self.table().handle_properties)(&raw mut out, handle) };
        let asked = status.check("cuMemGetAllocationPropertiesFromHandle");
        // SAFETY: gives back the reference that cuMemRetainAllocationHandle took above, once.
        let released = unsafe { (self.table().memory_release)(handle) };
        asked?;
        released.check("cuMemRelease")?;
        Ok(Some(out))
    }
}

/// Device memory of our own. Dropping it gives nothing back: it may hold weights. Only [`Mapping::unmap`] does.
pub(crate) struct Mapping {
    context: Arc<Context>,
    span: Span,
    handle: u64,
}

impl fmt::Debug for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mapping").field("bytes", &self.span.bytes).finish_non_exhaustive()
    }
}

/// How giving back a mapping ended.
#[derive(Debug)]
pub(crate) enum Unmapped {
    /// All of it is given back.
    Done,
    /// It is not mapped any more, but part of it could not be given back.
    Leaked(DriverError),
    /// It is still there, as it was.
    Refused(Mapping, DriverError),
}

impl Mapping {
    /// Reserves addresses, creates memory that no other process can be given, maps it, and lets this device alone read and
    /// write it. A step that fails undoes those before it.
    pub(crate) fn create(context: &Arc<Context>, bytes: u64) -> Result<Self, DriverError> {
        let _current = context.enter()?;
        let size = native(bytes);
        let mut ptr = 0;
        // SAFETY: the driver writes one address to the local; no fixed address is asked for.
        let status = unsafe { (context.table().address_reserve)(&raw mut ptr, size, 0, 0, 0) };
        status.check("cuMemAddressReserve")?;
        let free = || {
            // SAFETY: gives back the addresses reserved above, in which nothing is mapped any more.
            leaked(unsafe { (context.table().address_free)(ptr, size) }.check("cuMemAddressFree"));
        };
        let (mut handle, wanted) = (0, context.properties());
        // SAFETY: the driver writes one handle and reads one CUmemAllocationProp (layout asserted in types.rs), both locals.
        let status = unsafe { (context.table().memory_create)(&raw mut handle, size, &raw const wanted, 0) };
        status.check("cuMemCreate").inspect_err(|_| free())?;
        let release = || {
            // SAFETY: gives back the handle created above, which nothing maps any more.
            leaked(unsafe { (context.table().memory_release)(handle) }.check("cuMemRelease"));
            free();
        };
        // SAFETY: maps all of the new allocation over all of the addresses reserved for it, which nobody else has.
        let status = unsafe { (context.table().memory_map)(ptr, size, 0, handle, 0) };
        status.check("cuMemMap").inspect_err(|_| release())?;
        let mapping = Self { context: Arc::clone(context), span: Span { ptr: DevicePtr(ptr), bytes }, handle };
        mapping.set_access(ACCESS_READ_WRITE).inspect_err(|_| {
            // SAFETY: undoes the mapping made above, which no work has used: nothing could access it.
            leaked(unsafe { (context.table().memory_unmap)(ptr, size) }.check("cuMemUnmap"));
            release();
        })?;
        Ok(mapping)
    }

    /// Its place.
    pub(crate) const fn span(&self) -> Span {
        self.span
    }

    /// Switches all of it, and asks the driver what it allows now. `Ok(false)`: the driver cannot say, says otherwise, or does not
    /// offer read-only memory. Being refused read and write is an error.
    pub(crate) fn protect(&self, read_only: bool) -> Result<bool, DriverError> {
        let wanted = if read_only { ACCESS_READ } else { ACCESS_READ_WRITE };
        let _current = self.context.enter()?;
        match self.set_access(wanted) {
            Err(error)
                if read_only && (not_offered(&error) || matches!(error.code, INVALID_DEVICE | NOT_PERMITTED)) =>
            {
                return Ok(false);
            }
            switched => switched?,
        }
        let Some(get_access) = self.context.table().get_access else { return Ok(false) };
        let (mut flags, location) = (0_u64, self.context.location());
        // SAFETY: the driver writes 64 bits of flags and reads one CUmemLocation (layout asserted in types.rs), both locals.
        let status = unsafe { get_access(&raw mut flags, &raw const location, self.span.ptr.0) };
        match status.check("cuMemGetAccess") {
            Err(error) if not_offered(&error) => Ok(false),
            asked => asked.map(|()| flags == u64::from(wanted)),
        }
    }

    /// For this device alone; no other was ever given access.
    fn set_access(&self, flags: u32) -> Result<(), DriverError> {
        let access = AccessDesc { location: self.context.location(), flags };
        let (ptr, bytes) = (self.span.ptr.0, native(self.span.bytes));
        // SAFETY: the driver reads one CUmemAccessDesc (layout asserted in types.rs), a local; the range is this mapping's.
        unsafe { (self.context.table().set_access)(ptr, bytes, &raw const access, 1) }.check("cuMemSetAccess")
    }

    /// Gives it back: the mapping, the memory, the addresses. The caller has made sure that no work uses it.
    pub(crate) fn unmap(self) -> Unmapped {
        let context = Arc::clone(&self.context);
        let current = match context.enter() {
            Ok(current) => current,
            Err(error) => return Unmapped::Refused(self, error),
        };
        let (ptr, bytes) = (self.span.ptr.0, native(self.span.bytes));
        // SAFETY: this is the whole mapping made in Mapping::create, still in place because `self` is. No kernel uses it: the
        // caller waited for every stream that its book-keeping names. The host has no reference into device memory.
        if let Err(error) = unsafe { (context.table().memory_unmap)(ptr, bytes) }.check("cuMemUnmap") {
            drop(current);
            return Unmapped::Refused(self, error);
        }
        // SAFETY: the one release for the cuMemCreate of this mapping; `self` is consumed, so there is no second.
        let released = unsafe { (context.table().memory_release)(self.handle) }.check("cuMemRelease");
        // SAFETY: the whole reservation of this mapping, in which nothing is mapped since the unmap above.
        let freed = unsafe { (context.table().address_free)(ptr, bytes) }.check("cuMemAddressFree");
        match released.and(freed) {
            Ok(()) => Unmapped::Done,
            Err(error) => Unmapped::Leaked(error),
        }
    }
}

/// Whether the driver, or this device, does not have what was asked for.
const fn not_offered(error: &DriverError) -> bool {
    matches!(error.kind, DriverErrorKind::NotSupported | DriverErrorKind::InvalidValue)
}

/// What an undo could not undo.
fn leaked(result: Result<(), DriverError>) {
    if let Err(error) = result {
        aside!(|| tracing::error!(%error, "an allocation that failed could not be undone; it is lost to this process"));
    }
}
