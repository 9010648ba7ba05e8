//! The kernels that were embedded, and which of them a device runs.

#[cfg(vram_cuda_kernels)]
mod embedded {
    #![allow(missing_docs, dead_code, reason = "written by build.rs; PTX is for development")]
    include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
}

/// A native image.
#[derive(Clone, Copy)]
pub(super) struct Image {
    /// Major times ten plus minor.
    pub(super) arch: u32,
    pub(super) code: &'static [u8],
}

/// Native images, all made with one toolkit.
#[derive(Clone)]
pub(super) struct Images {
    /// CUDA version of the toolkit: 1000 × major + 10 × minor.
    pub(super) toolkit: i32,
    pub(super) images: Vec<Image>,
}

impl Images {
    /// What build.rs embedded, if it found nvcc.
    #[cfg(feature = "cuda")]
    pub(super) fn embedded() -> Option<Self> {
        #[cfg(vram_cuda_kernels)]
        {
            let images = embedded::IMAGES.iter().map(|image| Image { arch: image.arch, code: image.code }).collect();
            Some(Self { toolkit: embedded::TOOLKIT, images })
        }
        #[cfg(not(vram_cuda_kernels))]
        {
            None
        }
    }

    /// Images as build.rs embeds them, without kernels in them: the mock looks at the first bytes only.
    #[cfg(feature = "mock")]
    pub(super) fn of_mock() -> Self {
        #[repr(align(64))]
        struct Aligned([u8; 64]);
        static CODE: Aligned = Aligned(*b"\x7fELF, as far as the mock looks; there is no machine code in here");
        Self { toolkit: 13_000, images: [80, 90].map(|arch| Image { arch, code: &CODE.0 }).to_vec() }
    }

    /// The oldest driver that takes these images, as the CUDA version that it speaks. Within a major version every driver takes
    /// the native images of every toolkit.
    pub(super) fn least_driver(&self) -> i32 {
        self.toolkit.wrapping_div(1000).wrapping_mul(1000)
    }

    /// The native image for a device: of the same major version, and of the highest minor version that is not above its own.
    pub(super) fn choose(&self, (major, minor): (u32, u32)) -> Option<&Image> {
        let device = major.checked_mul(10)?.checked_add(minor)?;
        let same = |arch: u32| arch.checked_div(10) == Some(major) && arch <= device;
        self.images.iter().filter(|image| same(image.arch)).max_by_key(|image| image.arch)
    }

    /// The architectures, for people: `sm_80, sm_90`.
    pub(super) fn names(&self) -> String {
        self.images.iter().map(|image| format!("sm_{}", image.arch)).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_gets_the_best_image_of_its_own_major_version() {
        // covers: DEV-6
        let images = [80, 86, 89, 90, 120].map(|arch| Image { arch, code: b"\x7fELF" }).to_vec();
        let images = Images { toolkit: 13_010, images };
        for (capability, expected) in [
            ((8, 0), Some(80)),
            ((8, 6), Some(86)),
            ((8, 7), Some(86)),
            ((8, 9), Some(89)),
            ((9, 0), Some(90)),
            ((10, 0), None),
            ((7, 5), None),
            ((12, 1), Some(120)),
            ((u32::MAX, 0), None),
        ] {
            assert_eq!(images.choose(capability).map(|image| image.arch), expected, "{capability:?}");
        }
        assert_eq!((images.least_driver(), Images { toolkit: 12_080, ..images }.least_driver()), (13_000, 12_000));
    }
}
