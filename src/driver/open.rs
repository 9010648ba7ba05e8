//! Opening a device, and saying exactly why it cannot be.

use std::fmt;
use std::sync::Arc;

use super::Driver;
use super::images::Images;
#[cfg(feature = "cuda")]
use super::library::{DriverLibrary, Refused};
use crate::error::VramError;
#[cfg(feature = "mock")]
use crate::ffi::mock::Machine;
use crate::ffi::{Api, Context, Kernels, LoadError};
use crate::types::{DeviceInfo, DeviceUuid, DriverError};

/// Which device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    First,
    Ordinal(u32),
    Uuid(DeviceUuid),
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("the first CUDA device"),
            Self::Ordinal(ordinal) => write!(f, "CUDA device {ordinal}"),
            Self::Uuid(uuid) => write!(f, "the CUDA device {uuid}"),
        }
    }
}

/// Why there is no device. Each is another thing to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[cfg(feature = "cuda")]
    #[error(
        "this build has no CUDA kernels ({}); build with nvcc on the PATH, in CUDA_HOME or named by NVCC",
        env!("VRAM_RESIDENCY_BUILD")
    )]
    NoKernels,
    #[error(transparent)]
    Library(#[from] LoadError),
    #[error("the NVIDIA driver does not start ({0}); check nvidia-smi")]
    Start(DriverError),
    #[error(
        "the NVIDIA driver is too old: it speaks CUDA {}, the kernels of this build need CUDA {}{}: update it",
        version(*found), version(*least), release(*least)
    )]
    TooOld { found: i32, least: i32 },
    #[error("the NVIDIA driver sees no device; check CUDA_VISIBLE_DEVICES and nvidia-smi")]
    NoDevice,
    #[error("there is no such ordinal: the NVIDIA driver sees {0} device(s), counted from 0; give one of them")]
    NoOrdinal(u32),
    #[error(
        "no device that the NVIDIA driver sees has this UUID; it sees {0}; give one of them (what CUDA_VISIBLE_DEVICES hides is not seen, and of MIG instances one at a time)"
    )]
    NoUuid(String),
    #[error(
        "it has no virtual memory management, which owned regions need; use another device, or a driver that offers it"
    )]
    NoVirtualMemory,
    #[error(
        "this build has no native image for sm_{major}{minor}, only for {images}; nothing is compiled just in time: build with \
         an nvcc that knows it"
    )]
    NoImage { major: u32, minor: u32, images: String },
    #[error("its primary context cannot be made ({0}); check nvidia-smi and the driver's log")]
    Context(DriverError),
    #[error("the kernels for it cannot be loaded ({0}); check the driver's version and log")]
    Kernels(DriverError),
    #[error("the NVIDIA driver does not answer ({0}); check nvidia-smi and the driver's log")]
    Call(#[from] DriverError),
    #[error("the NVIDIA driver gave an allocation unit that is no power of two; use another driver")]
    Granularity,
}

/// `13000` as `13.0`.
fn version(number: i32) -> String {
    format!("{}.{}", number.wrapping_div(1000), number.wrapping_rem(1000).wrapping_div(10))
}

/// The driver's release that first speaks a major version of CUDA.
const fn release(least: i32) -> &'static str {
    match least {
        12_000 => " (driver 525 or later)",
        13_000 => " (driver 580 or later)",
        _ => "",
    }
}

/// Opens a device with the driver's library and the embedded kernels.
///
/// # Errors
/// `DEVICE_UNAVAILABLE`, with what to do; `POLICY_VIOLATION` for a library that is judged and does not pass.
#[cfg(feature = "cuda")]
pub(crate) fn open(wanted: Wanted, library: &DriverLibrary) -> Result<Arc<Driver>, VramError> {
    let candidates = library.candidates().map_err(|refused| match refused {
        Refused::Missing(why) => unavailable(wanted, &LoadError::NoLibrary(why).into()),
        Refused::Changeable(problem) => VramError::PolicyViolation { rule: "clean_environment", problem },
    })?;
    let opened = Images::embedded()
        .ok_or(OpenError::NoKernels)
        .and_then(|images| open_with(|| Api::load(&candidates), &images, wanted));
    opened.map(Arc::new).map_err(|error| unavailable(wanted, &error))
}

/// Which driver library is wanted where none can be opened: none.
#[cfg(not(feature = "cuda"))]
#[derive(Clone, Debug)]
pub(crate) struct DriverLibrary {
    pub(crate) told: Option<std::path::PathBuf>,
}

/// Says that this build opens no CUDA device.
///
/// # Errors
/// `DEVICE_UNAVAILABLE`, always.
#[cfg(not(feature = "cuda"))]
pub(crate) fn open(wanted: Wanted, _: &DriverLibrary) -> Result<Arc<Driver>, VramError> {
    let problem = format!("{wanted} was asked for, but this build has no CUDA driver; build with the feature cuda");
    Err(VramError::DeviceUnavailable { problem })
}

/// Opens a device of a mock machine.
///
/// # Errors
/// `CUDA_ERROR` where the driver refuses, as when the device is dead; `DEVICE_UNAVAILABLE` where it has no such device.
#[cfg(feature = "mock")]
pub(crate) fn open_mock(machine: &Arc<Machine>, ordinal: u32) -> Result<Arc<Driver>, VramError> {
    let wanted = Wanted::Ordinal(ordinal);
    open_with(|| Api::of_mock(machine, None), &Images::of_mock(), wanted).map(Arc::new).map_err(|error| match error {
        OpenError::Start(error) | OpenError::Context(error) | OpenError::Kernels(error) | OpenError::Call(error) => {
            error.into()
        }
        error => unavailable(wanted, &error),
    })
}

/// The error that callers see.
pub(super) fn unavailable(wanted: Wanted, error: &OpenError) -> VramError {
    VramError::DeviceUnavailable { problem: format!("{wanted} cannot be opened: {error}") }
}

/// Opens a device of the driver that `load` loads.
pub(super) fn open_with(
    load: impl FnOnce() -> Result<Api, LoadError>,
    images: &Images,
    wanted: Wanted,
) -> Result<Driver, OpenError> {
    let api = load()?;
    api.start().map_err(|error| if error.code == NO_DEVICE { OpenError::NoDevice } else { OpenError::Start(error) })?;
    let (found, least) = (api.version()?, images.least_driver());
    if found < least {
        return Err(OpenError::TooOld { found, least });
    }
    let (ordinal, device) = find(&api, wanted)?;
    if !api.has_virtual_memory(device)? {
        return Err(OpenError::NoVirtualMemory);
    }
    let (major, minor) = api.capability(device)?;
    let image =
        images.choose((major, minor)).ok_or_else(|| OpenError::NoImage { major, minor, images: images.names() })?;
    let context = Context::retain(&api, device).map_err(OpenError::Context)?;
    let kernels = Kernels::load(&context, image.code).map_err(OpenError::Kernels)?;
    let info = DeviceInfo {
        kind: api.kind(),
        ordinal,
        uuid: DeviceUuid::from_bytes(api.uuid(device)?),
        name: api.name(device)?,
        total_bytes: api.total_bytes(device)?,
        granularity: context.granularity()?,
    };
    if !info.granularity.is_power_of_two() {
        return Err(OpenError::Granularity);
    }
    Ok(Driver::new(info, context, kernels))
}

/// CUDA_ERROR_NO_DEVICE.
const NO_DEVICE: u32 = 100;

/// The ordinal and the driver's handle of a device.
fn find(api: &Api, wanted: Wanted) -> Result<(u32, i32), OpenError> {
    let count = match api.devices() {
        Err(error) if error.code == NO_DEVICE => 0,
        other => other?,
    };
    if count == 0 {
        return Err(OpenError::NoDevice);
    }
    let ordinal = match wanted {
        Wanted::First => 0,
        Wanted::Ordinal(ordinal) if ordinal < count => ordinal,
        Wanted::Ordinal(_) => return Err(OpenError::NoOrdinal(count)),
        Wanted::Uuid(uuid) => {
            let mut seen = Vec::new();
            for ordinal in 0..count {
                let device = api.device(ordinal)?;
                let found = DeviceUuid::from_bytes(api.uuid(device)?);
                if found == uuid {
                    return Ok((ordinal, device));
                }
                seen.push(found.to_string());
            }
            return Err(OpenError::NoUuid(seen.join(", ")));
        }
    };
    Ok((ordinal, api.device(ordinal)?))
}
