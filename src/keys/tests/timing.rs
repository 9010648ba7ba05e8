//! Whether the time of a comparison tells where a wrong tag goes wrong: after dudect (Reparaz, Balasch, Verbauwhede, 2017).
//!
//! Two classes of wrong tags are presented in random order, each copied to the same place before the clock starts. Welch's t
//! over both classes of times is taken for all of them and for the fastest only, because the slow ones are the machine's
//! doing. A comparison that leaves at the first wrong byte must be found out by the same measurement, else it shows nothing.

use std::hint::black_box;
use std::time::Instant;

use super::*;

/// From here on |t| is no accident.
const LEAK: f64 = 10.0;
/// Measurements of both classes together.
const MEASUREMENTS: usize = 600_000;
/// Comparisons in one measurement, which lift them above the clock's resolution.
const REPEATS: usize = 4;
/// The parts of the measurements, from the fastest on, that are judged.
const KEPT: [f64; 6] = [0.3, 0.5, 0.7, 0.9, 0.99, 1.0];

/// Makes the wrong tags of a class.
type Class<'a> = &'a dyn Fn() -> [u8; 32];

/// Times `accepts` on wrong tags of two classes and returns the |t| that is largest over the croppings.
fn largest_t(classes: [Class<'_>; 2], accepts: impl Fn(&Tag) -> bool) -> f64 {
    let mut coins = vec![0; MEASUREMENTS];
    getrandom::fill(&mut coins).unwrap();
    let tags: Vec<_> = coins.iter().map(|coin| (usize::from(coin & 1), classes[usize::from(coin & 1)]())).collect();
    let mut place = Tag::from_bytes([0; 32]);
    let mut times = Vec::with_capacity(tags.len());
    for (class, bytes) in &tags {
        place.0.copy_from_slice(bytes);
        let began = Instant::now();
        for _ in 0..REPEATS {
            assert!(!accepts(black_box(&place)));
        }
        times.push((*class, began.elapsed().as_nanos() as f64));
    }
    // The first ones warm caches and clock.
    times.drain(..MEASUREMENTS / 20);
    let mut sorted: Vec<f64> = times.iter().map(|(_, time)| *time).collect();
    sorted.sort_by(f64::total_cmp);
    let crop = |kept: f64| sorted[((sorted.len() - 1) as f64 * kept) as usize];
    KEPT.map(|kept| welch(&times, crop(kept)).abs()).into_iter().fold(0.0, f64::max)
}

/// Welch's t of the two classes' times up to `limit`.
fn welch(times: &[(usize, f64)], limit: f64) -> f64 {
    let [one, two] = [0, 1].map(|class| {
        let kept: Vec<f64> =
            times.iter().filter(|(of, time)| *of == class && *time <= limit).map(|(_, t)| *t).collect();
        let count = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / count;
        let variance = kept.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    });
    let error = (one.1 + two.1).sqrt();
    if error == 0.0 { if one.0 == two.0 { 0.0 } else { f64::INFINITY } } else { (one.0 - two.0) / error }
}

/// Leaves at the first byte that differs.
#[inline(never)]
fn leaky(one: &[u8; 32], two: &[u8; 32]) -> bool {
    for (one, two) in one.iter().zip(two) {
        if black_box(one) != black_box(two) {
            return false;
        }
    }
    true
}

#[test]
fn welch_tells_different_means_from_equal_ones() {
    let noise = |class: usize, shift: f64| (0..1000).map(move |at| (class, f64::from(at % 97) + shift));
    let of = |shift| noise(0, 0.0).chain(noise(1, shift)).collect::<Vec<_>>();
    assert!(welch(&of(0.0), f64::MAX).abs() < 0.01);
    assert!(welch(&of(30.0), f64::MAX) < -LEAK);
    assert!(welch(&of(-30.0), f64::MAX) > LEAK);
}

#[test]
#[ignore = "measures time, which other load disturbs; ci/deep.sh timing"]
fn tags_are_compared_in_constant_time() {
    let message = b"message";
    let key = key();
    let right = *key.sign(message).as_bytes();
    let wrong_at = |at: usize| {
        let mut tag = right;
        tag[at] ^= 1;
        tag
    };
    let random = || {
        let mut tag = [0; 32];
        getrandom::fill(&mut tag).unwrap();
        tag
    };
    let (first, last) = (|| wrong_at(0), || wrong_at(31));
    let pairs: [(&str, [Class<'_>; 2]); 2] =
        [("first byte wrong, last byte wrong", [&first, &last]), ("one fixed, random ones", [&last, &random])];
    let mut wrong = Vec::new();
    for (name, classes) in pairs {
        let twin = largest_t(classes, |tag| leaky(key.sign(message).as_bytes(), tag.as_bytes()));
        // Three measurements: a leak shows in each of them, a disturbance of the machine does not.
        let ours = (0..3).map(|_| largest_t(classes, |tag| key.verify(message, tag))).fold(f64::INFINITY, f64::min);
        println!("{name}: |t| = {ours:.1} for tags, {twin:.1} for the leaky twin; a leak from {LEAK} on");
        if ours >= LEAK {
            wrong.push(format!("{name}: tags are compared in a time that tells where they differ"));
        }
        if twin < LEAK {
            wrong.push(format!("{name}: the leaky twin was not found out, so this measurement shows nothing"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
