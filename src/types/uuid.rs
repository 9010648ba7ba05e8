//! The identity of a device.
//!
//! Owns [`DeviceUuid`] and how it is written and read.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::Invalid;
use crate::text::quote;

/// The 16 bytes by which a driver tells devices (and MIG instances) apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeviceUuid([u8; 16]);

impl DeviceUuid {
    /// Takes the driver's 16 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Invalid> {
        let refused = || Invalid {
            field: "device UUID",
            problem: format!(
                "{} is not one; give GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx or MIG-…, in whole, as nvidia-smi -L prints it",
                quote(text)
            ),
        };
        let digits = text.strip_prefix("GPU-").or_else(|| text.strip_prefix("MIG-")).ok_or_else(refused)?;
        if !digits.split('-').map(str::len).eq([8, 4, 4, 4, 12]) {
            return Err(refused());
        }
        let mut bytes = [0; 16];
        hex::decode_to_slice(digits.replace('-', ""), &mut bytes).map_err(|_| refused())?;
        Ok(Self(bytes))
    }
}

impl fmt::Debug for DeviceUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceUuid({self})")
    }
}

impl fmt::Display for DeviceUuid {
    /// Prints `GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`, as `nvidia-smi -L` does for a device. A MIG instance is printed so, too: the
    /// driver does not say which of the two it is.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GPU")?;
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 0 | 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_prints_as_the_driver_tools_print_it() {
        let uuid = DeviceUuid::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(uuid.to_string(), "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f");
    }

    #[test]
    fn a_uuid_is_read_as_the_driver_tools_print_it_and_not_otherwise() {
        // covers: ERR-2 RES-8
        let uuid = DeviceUuid::from_bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
        assert_eq!(uuid.to_string().parse::<DeviceUuid>().unwrap(), uuid);
        assert_eq!("MIG-00010203-0405-0607-0809-0A0B0C0D0E0F".parse::<DeviceUuid>().unwrap(), uuid);
        for bad in [
            "",
            "GPU-",
            "GPU-00010203",
            "00010203-0405-0607-0809-0a0b0c0d0e0f",
            "gpu-00010203-0405-0607-0809-0a0b0c0d0e0f",
            "GPU-000102030405060708090a0b0c0d0e0f",
            "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f-",
            "GPU-00010203-0405-0607-0809-0a0b0c0d0e0g",
            "GPU-0001020\u{e9}-0405-0607-0809-0a0b0c0d0e0",
            "MIG-GPU-00010203-0405-0607-0809-0a0b0c0d0e0f/1/0",
            " GPU-00010203-0405-0607-0809-0a0b0c0d0e0f",
        ] {
            let error = bad.parse::<DeviceUuid>().unwrap_err();
            assert_eq!(error.code().as_str(), "INVALID_PARAMS", "{bad}");
            assert!(error.to_string().contains("nvidia-smi -L"), "{error}");
        }
    }
}
