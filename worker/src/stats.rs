//! The work of an execute: minimum, maximum, mean and number of NaNs of every tensor.
//!
//! Owns the decoding of elements and [`Summary`]. Promises that the same bytes give the same summary, bit for bit. Weights are
//! read in pieces of at most 1 MiB into one buffer that is wiped after every piece; no byte of them is kept anywhere else.

use std::collections::TryReserveError;

use half::{bf16, f16};
use vram_residency::VramError;
use zeroize::{Zeroize, Zeroizing};

use crate::exit::Failure;
use crate::image::{Image, Region};
use crate::signals::Signals;

/// The most weight bytes that are outside VRAM at a time. A multiple of every element's size.
const PIECE_BYTES: usize = 1 << 20;

/// A value of a tensor, exact for integers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    Float(f64),
    Int(i128),
}

impl PartialEq for Value {
    /// By bits, so that a NaN equals itself.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Float(left), Self::Float(right)) => left.to_bits() == right.to_bits(),
            (Self::Int(left), Self::Int(right)) => left == right,
            _ => false,
        }
    }
}

/// What the elements of one tensor came to. NaNs are counted and otherwise left out; infinities are numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    /// `None` without elements, or where the type is not decoded.
    pub(crate) min: Option<Value>,
    pub(crate) max: Option<Value>,
    pub(crate) mean: Option<Value>,
    /// `None` where the type is not decoded.
    pub(crate) nan: Option<u64>,
    /// How many are infinite, of either sign. `None` where the type is not decoded.
    pub(crate) inf: Option<u64>,
}

/// Reads regions of a verified image, in its order.
pub(crate) fn summarize(image: &Image<'_>, regions: &[Region<'_>], signals: &Signals) -> Result<Vec<Summary>, Failure> {
    let longest = regions.iter().map(|region| region.bytes).max().unwrap_or(0);
    let mut buffer = buffer(usize::try_from(longest).unwrap_or(PIECE_BYTES).min(PIECE_BYTES))?;
    regions
        .iter()
        .map(|region| {
            let mut tally = Tally::of(region.tensor.map_or("U8", |tensor| tensor.dtype.as_str()));
            let (mut offset, mut left) = (region.offset, region.bytes);
            while left > 0 {
                signals.check()?;
                let bytes = usize::try_from(left).unwrap_or(PIECE_BYTES).min(PIECE_BYTES);
                let piece = buffer.get_mut(..bytes).unwrap_or_default();
                let read = image.read_at(offset, piece);
                if read.is_ok() {
                    tally.add(piece);
                }
                piece.zeroize();
                read?;
                let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
                offset = offset.saturating_add(bytes);
                left = left.saturating_sub(bytes);
            }
            Ok(tally.finish())
        })
        .collect()
}

/// Zeros, if the host has room for them.
fn buffer(bytes: usize) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut zeros = Zeroizing::new(Vec::new());
    let refused = |error: TryReserveError| Failure::Io { what: "taking a buffer on the host", source: error.into() };
    zeros.try_reserve_exact(bytes).map_err(refused)?;
    zeros.resize(bytes, 0);
    Ok(zeros)
}

/// The error of an execute whose bytes were verified and yet gave other numbers than before.
pub(crate) const fn disagreement() -> VramError {
    VramError::Internal { what: "an execute over verified bytes gave other numbers than the first one" }
}

/// A summary in the making.
enum Tally {
    Floats { add: fn(&mut Floats, &[u8]), so_far: Floats },
    Ints { add: fn(&mut Ints, &[u8]), so_far: Ints },
    NotDecoded,
}

impl Tally {
    /// By the spelling of safetensors.
    fn of(dtype: &str) -> Self {
        let floats = |add| Self::Floats { add, so_far: Floats::default() };
        let ints = |add| Self::Ints { add, so_far: Ints::default() };
        match dtype {
            "F64" => floats(|to, bytes| to.add(bytes, f64::from_le_bytes)),
            "F32" => floats(|to, bytes| to.add(bytes, |raw| f64::from(f32::from_le_bytes(raw)))),
            "F16" => floats(|to, bytes| to.add(bytes, |raw| f16::from_le_bytes(raw).to_f64())),
            "BF16" => floats(|to, bytes| to.add(bytes, |raw| bf16::from_le_bytes(raw).to_f64())),
            // Its bits are the upper half of an F16.
            "F8_E5M2" => floats(|to, bytes| to.add(bytes, |[byte]| f16::from_le_bytes([0, byte]).to_f64())),
            "F8_E4M3" => floats(|to, bytes| to.add(bytes, |[byte]| e4m3(byte))),
            "I64" => ints(|to, bytes| to.add_wide(bytes, |raw| i128::from(i64::from_le_bytes(raw)))),
            "U64" => ints(|to, bytes| to.add_wide(bytes, |raw| i128::from(u64::from_le_bytes(raw)))),
            "I32" => ints(|to, bytes| to.add(bytes, |raw| i64::from(i32::from_le_bytes(raw)))),
            "U32" => ints(|to, bytes| to.add(bytes, |raw| i64::from(u32::from_le_bytes(raw)))),
            "I16" => ints(|to, bytes| to.add(bytes, |raw| i64::from(i16::from_le_bytes(raw)))),
            "U16" => ints(|to, bytes| to.add(bytes, |raw| i64::from(u16::from_le_bytes(raw)))),
            "I8" => ints(|to, bytes| to.add(bytes, |raw| i64::from(i8::from_le_bytes(raw)))),
            "U8" | "BOOL" => ints(|to, bytes| to.add(bytes, |[byte]| i64::from(byte))),
            _ => Self::NotDecoded,
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        match self {
            Self::Floats { add, so_far } => add(so_far, bytes),
            Self::Ints { add, so_far } => add(so_far, bytes),
            Self::NotDecoded => {}
        }
    }

    fn finish(self) -> Summary {
        match self {
            Self::Floats { so_far, .. } => so_far.finish(),
            Self::Ints { so_far, .. } => so_far.finish(),
            Self::NotDecoded => Summary { min: None, max: None, mean: None, nan: None, inf: None },
        }
    }
}

/// One byte of 1 sign, 4 exponent and 3 mantissa bits, without infinities (OCP 8-bit floating point, 2023).
fn e4m3(byte: u8) -> f64 {
    let (exponent, mantissa) = (i32::from((byte >> 3) & 15), f64::from(byte & 7));
    let magnitude = match (exponent, byte & 7) {
        (15, 7) => f64::NAN,
        (0, _) => mantissa * 2f64.powi(-9),
        _ => (8.0 + mantissa) * 2f64.powi(exponent.saturating_sub(10)),
    };
    if byte < 0x80 { magnitude } else { -magnitude }
}

/// 2^-64: the sum of as many numbers as there can be, each made so much smaller, is still finite.
const SMALL: f64 = 1.0 / 18_446_744_073_709_551_616.0;

#[derive(Clone, Copy)]
struct Floats {
    min: f64,
    max: f64,
    /// Of the finite ones.
    sum: f64,
    /// The same, scaled by [`SMALL`].
    small_sum: f64,
    numbers: u64,
    nan: u64,
    inf: u64,
}

impl Default for Floats {
    fn default() -> Self {
        Self { min: f64::INFINITY, max: f64::NEG_INFINITY, sum: 0.0, small_sum: 0.0, numbers: 0, nan: 0, inf: 0 }
    }
}

impl Floats {
    fn add<const N: usize>(&mut self, bytes: &[u8], decode: impl Fn([u8; N]) -> f64) {
        for raw in bytes.as_chunks().0 {
            let value = decode(*raw);
            if value.is_nan() {
                self.nan = self.nan.saturating_add(1);
                continue;
            }
            self.numbers = self.numbers.saturating_add(1);
            if value.is_finite() {
                self.sum += value;
                self.small_sum += value * SMALL;
            } else {
                self.inf = self.inf.saturating_add(1);
            }
            self.min = if value < self.min { value } else { self.min };
            self.max = if value > self.max { value } else { self.max };
        }
    }

    fn finish(self) -> Summary {
        let some = |value| (self.numbers > 0).then_some(Value::Float(value));
        Summary {
            min: some(self.min),
            max: some(self.max),
            mean: some(self.mean()),
            nan: Some(self.nan),
            inf: Some(self.inf),
        }
    }

    /// As if it were added up in numbers without bounds.
    fn mean(&self) -> f64 {
        if self.inf > 0 {
            // An infinity if all have one sign, else no number.
            return [self.min, self.max].into_iter().filter(|end| end.is_infinite()).sum();
        }
        let numbers = to_f64(self.numbers);
        if self.sum.is_finite() {
            self.sum / numbers
        } else {
            (self.small_sum / numbers / SMALL).max(self.min).min(self.max)
        }
    }
}

#[derive(Clone, Copy)]
struct Ints {
    min: i128,
    max: i128,
    sum: i128,
    numbers: u64,
}

impl Default for Ints {
    fn default() -> Self {
        Self { min: i128::MAX, max: i128::MIN, sum: 0, numbers: 0 }
    }
}

impl Ints {
    /// For types of up to 32 bits: a piece of them cannot overflow an `i64`, which is much faster to add than an `i128`.
    fn add<const N: usize>(&mut self, bytes: &[u8], decode: impl Fn([u8; N]) -> i64) {
        for bytes in bytes.chunks(PIECE_BYTES) {
            let elements = bytes.as_chunks().0;
            let (mut min, mut max, mut sum) = (i64::MAX, i64::MIN, 0i64);
            for raw in elements {
                let value = decode(*raw);
                min = min.min(value);
                max = max.max(value);
                sum = sum.wrapping_add(value);
            }
            if !elements.is_empty() {
                self.take(min.into(), max.into(), sum.into(), elements.len());
            }
        }
    }

    fn add_wide<const N: usize>(&mut self, bytes: &[u8], decode: impl Fn([u8; N]) -> i128) {
        for raw in bytes.as_chunks().0 {
            let value = decode(*raw);
            self.take(value, value, value, 1);
        }
    }

    fn take(&mut self, min: i128, max: i128, sum: i128, numbers: usize) {
        self.min = self.min.min(min);
        self.max = self.max.max(max);
        self.sum = self.sum.saturating_add(sum);
        self.numbers = self.numbers.saturating_add(u64::try_from(numbers).unwrap_or(u64::MAX));
    }

    fn finish(self) -> Summary {
        let some = |value| (self.numbers > 0).then_some(value);
        Summary {
            min: some(Value::Int(self.min)),
            max: some(Value::Int(self.max)),
            mean: some(Value::Float(signed_to_f64(self.sum) / to_f64(self.numbers))),
            nan: Some(0),
            inf: Some(0),
        }
    }
}

/// The nearest `f64`; exact up to 2^53.
pub(crate) fn to_f64(value: u64) -> f64 {
    let half = |word: u64| f64::from(u32::try_from(word & 0xffff_ffff).unwrap_or(u32::MAX));
    half(value >> 32) * 4_294_967_296.0 + half(value)
}

/// An `f64` next to the value.
pub(crate) fn signed_to_f64(value: i128) -> f64 {
    let half = |word: u128| to_f64(u64::try_from(word & u128::from(u64::MAX)).unwrap_or(u64::MAX));
    let magnitude = value.unsigned_abs();
    let absolute = half(magnitude >> 64) * 18_446_744_073_709_551_616.0 + half(magnitude);
    if value < 0 { -absolute } else { absolute }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(dtype: &str, bytes: &[u8]) -> Summary {
        let mut tally = Tally::of(dtype);
        tally.add(bytes);
        tally.finish()
    }

    fn floats(min: f64, max: f64, mean: f64, nan: u64) -> Summary {
        let float = |value| Some(Value::Float(value));
        Summary { min: float(min), max: float(max), mean: float(mean), nan: Some(nan), inf: Some(0) }
    }

    fn ints(min: i128, max: i128, mean: f64) -> Summary {
        let [min, max, mean] = [Value::Int(min), Value::Int(max), Value::Float(mean)].map(Some);
        Summary { min, max, mean, nan: Some(0), inf: Some(0) }
    }

    #[test]
    fn floats_of_every_width_are_decoded() {
        let f32s: Vec<u8> = [1.5f32, f32::NAN, -2.5, 4.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(summary("F32", &f32s), floats(-2.5, 4.0, 1.0, 1));
        let f64s: Vec<u8> = [0.25f64, 0.75].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(summary("F64", &f64s), floats(0.25, 0.75, 0.5, 0));
        let f16s: Vec<u8> =
            [f16::from_f32(-1.0), f16::NAN, f16::from_f32(3.0)].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(summary("F16", &f16s), floats(-1.0, 3.0, 1.0, 1));
        let bf16s: Vec<u8> = [bf16::from_f32(2.0), bf16::from_f32(4.0)].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(summary("BF16", &bf16s), floats(2.0, 4.0, 3.0, 0));
        assert_eq!(summary("F8_E5M2", &[0x3c, 0xbc, 0x7f]), floats(-1.0, 1.0, 0.0, 1));
        assert_eq!(summary("F8_E4M3", &[0x38, 0xb8, 0x7f, 0xff]), floats(-1.0, 1.0, 0.0, 2));
    }

    #[test]
    fn the_ends_of_e4m3_are_the_published_ones() {
        assert_eq!(e4m3(0x7e), 448.0);
        assert_eq!(e4m3(0x01), 2f64.powi(-9));
        assert_eq!(e4m3(0x08), 2f64.powi(-6));
        assert_eq!(e4m3(0xfe), -448.0);
        assert!(e4m3(0xff).is_nan());
    }

    #[test]
    fn integers_are_exact() {
        let i64s: Vec<u8> = [i64::MIN, i64::MAX, 9_007_199_254_740_993].iter().flat_map(|v| v.to_le_bytes()).collect();
        let found = summary("I64", &i64s);
        assert_eq!((found.min, found.max), (Some(Value::Int(i64::MIN.into())), Some(Value::Int(i64::MAX.into()))));
        let u64s: Vec<u8> = [u64::MAX, 1].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(summary("U64", &u64s), ints(1, u64::MAX.into(), 2f64.powi(63)));
        assert_eq!(summary("I32", &[0xff, 0xff, 0xff, 0xff, 3, 0, 0, 0]), ints(-1, 3, 1.0));
        assert_eq!(summary("U32", &[0xff; 4]), ints(u32::MAX.into(), u32::MAX.into(), f64::from(u32::MAX)));
        assert_eq!(summary("I16", &[0xfe, 0xff, 0, 0]), ints(-2, 0, -1.0));
        assert_eq!(summary("U16", &[0, 1]), ints(256, 256, 256.0));
        assert_eq!(summary("I8", &[0x80, 0x7f]), ints(-128, 127, -0.5));
        assert_eq!(summary("BOOL", &[1, 0, 1, 0]), ints(0, 1, 0.5));
        assert_eq!(summary("U8", &[7]), ints(7, 7, 7.0));
    }

    #[test]
    fn nothing_is_made_up_for_no_elements_and_for_unknown_types() {
        let none = Summary { min: None, max: None, mean: None, nan: Some(0), inf: Some(0) };
        assert_eq!(summary("F32", &[]), none);
        assert_eq!(summary("I64", &[]), none);
        assert_eq!(summary("U8", &[]), none);
        assert_eq!(summary("F4", &[1, 2]), Summary { nan: None, inf: None, ..none });
        let nans: Vec<u8> = f32::NAN.to_le_bytes().to_vec();
        assert_eq!(summary("F32", &nans), Summary { nan: Some(1), ..none });
    }

    #[test]
    fn infinities_are_counted_and_finite_numbers_do_not_become_any() {
        let of = |values: &[f64]| {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            summary("F64", &bytes)
        };
        let (inf, max) = (f64::INFINITY, f64::MAX);
        assert_eq!(of(&[1.0, inf, inf]), Summary { inf: Some(2), ..floats(1.0, inf, inf, 0) });
        assert_eq!(of(&[max, max, -inf]), Summary { inf: Some(1), ..floats(-inf, max, -inf, 0) });
        let both = of(&[f64::NAN, inf, -inf]);
        assert!(matches!(both.mean, Some(Value::Float(mean)) if mean.is_nan()));
        assert_eq!((both.nan, both.inf), (Some(1), Some(2)));
        for (values, mean) in [
            (&[1.7e308; 2][..], 1.7e308),
            (&[max; 3], max),
            (&[-max; 1000], -max),
            (&[max, max, -max, -max], 0.0),
            (&[max, max, -max], max / 3.0),
            // Nothing is lost where nothing overflows.
            (&[5e-324, 5e-324], 5e-324),
        ] {
            let found = of(values);
            assert_eq!((found.mean, found.inf), (Some(Value::Float(mean)), Some(0)), "{values:?}");
        }
    }

    #[test]
    fn a_summary_does_not_depend_on_how_it_is_cut() {
        let bytes: Vec<u8> = (0..4096u32).flat_map(|n| (f64::from(n).sin()).to_le_bytes()).collect();
        let mut cut = Tally::of("F64");
        bytes.chunks(800).for_each(|piece| cut.add(piece));
        assert_eq!(cut.finish(), summary("F64", &bytes));
    }

    #[test]
    fn large_numbers_become_the_nearest_float() {
        assert_eq!(to_f64(u64::MAX), 2f64.powi(64));
        assert_eq!(to_f64((1 << 53) - 1), 9_007_199_254_740_991.0);
        assert_eq!(signed_to_f64(-(1 << 100)), -(2f64.powi(100)));
    }
}
