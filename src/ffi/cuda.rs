//! What little of CUDA this version touches: whether an NVIDIA driver library can be loaded.

/// Whether the NVIDIA driver library (`libcuda`) is on this machine. Never panics; loads and unloads the library.
pub(crate) fn driver_library_present() -> bool {
    // SAFETY: is_culib_present calls no symbol of the library; it only loads it by its well-known names, which runs the
    // initialisers of the system's own NVIDIA driver, as every CUDA program does.
    unsafe { cudarc::driver::sys::is_culib_present() }
}
