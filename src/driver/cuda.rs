//! CUDA devices. This version has no CUDA driver yet: it only says so, clearly.

use crate::error::VramError;

/// Why `what` (such as `CUDA device 0`) cannot be opened, and what to do.
pub(crate) fn unavailable(what: &str) -> VramError {
    let library = if crate::ffi::cuda::driver_library_present() {
        "an NVIDIA driver library is present on this machine"
    } else {
        "no NVIDIA driver library is present on this machine"
    };
    VramError::DeviceUnavailable {
        problem: format!(
            "{what} cannot be opened: {library}, but this version of the crate has no CUDA driver yet ({}); name the mock \
             device to try the crate without one",
            env!("VRAM_RESIDENCY_BUILD")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorCode;

    #[test]
    fn it_names_what_was_asked_for_and_what_to_do() {
        let error = unavailable("CUDA device 3");
        assert_eq!(error.code(), ErrorCode::DeviceUnavailable);
        let text = error.to_string();
        for part in ["CUDA device 3", "NVIDIA driver library", "no CUDA driver yet", "mock"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
