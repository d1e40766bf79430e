//! GF(2^8) with the polynomial x^8 + x^4 + x^3 + x^2 + 1, in which 2 generates
//! every element but 0.
//!
//! Owns single elements, by tables that are made at compile time. Leaves whole
//! slices to `kernel`.

/// What x^8 is, without its own term.
pub(crate) const REDUCTION: u8 = 0x1d;

/// Twice an element.
const fn double(a: u8) -> u8 {
    (a << 1) ^ ((a >> 7) * REDUCTION)
}

/// The powers of 2, twice over so that a sum of two logarithms needs no modulo.
const POWERS: [u8; 510] = {
    let mut powers = [1; 510];
    let mut n = 1;
    while n < 510 {
        powers[n] = double(powers[n - 1]);
        n += 1;
    }
    powers
};

/// The logarithms to base 2; that of 0 is never used.
const LOGARITHMS: [u8; 256] = {
    let mut logarithms = [0; 256];
    let mut n = 0;
    while n < 255 {
        logarithms[POWERS[n] as usize] = n as u8;
        n += 1;
    }
    logarithms
};

/// The product of two elements.
pub(crate) const fn multiply(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        return 0;
    }
    POWERS[LOGARITHMS[a as usize] as usize + LOGARITHMS[b as usize] as usize]
}

/// The element by which `a` gives 1.
///
/// # Panics
/// When `a` is 0, which has none.
pub(crate) fn inverse(a: u8) -> u8 {
    assert!(a != 0, "0 has no inverse");
    POWERS[255 - usize::from(LOGARITHMS[usize::from(a)])]
}

/// `a` multiplied `n` times; 1 for `n` = 0, also if `a` is 0.
pub(crate) fn power(a: u8, n: usize) -> u8 {
    (0..n).fold(1, |product, _| multiply(product, a))
}

/// Products by one element: of each low half of a byte, and of each high half.
/// The product of a byte is the sum of two of them.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(crate) struct Nibbles {
    pub(crate) low: [u8; 16],
    pub(crate) high: [u8; 16],
}

impl Nibbles {
    pub(crate) fn of(factor: u8) -> Self {
        let low = std::array::from_fn(|half| multiply(factor, half as u8));
        let high = std::array::from_fn(|half| multiply(factor, (half as u8) << 4));
        Self { low, high }
    }

    /// The product of the factor and `byte`.
    pub(crate) fn product(&self, byte: u8) -> u8 {
        self.low[usize::from(byte & 15)] ^ self.high[usize::from(byte >> 4)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_one() {
        for a in 0..=255 {
            assert_eq!(multiply(a, 1), a);
            for b in 0..=255 {
                assert_eq!(multiply(a, b), multiply(b, a));
                assert_eq!(Nibbles::of(a).product(b), multiply(a, b));
                let sum = multiply(a, 77) ^ multiply(b, 77);
                assert_eq!(multiply(a ^ b, 77), sum);
            }
        }
        for a in 1..=255 {
            assert_eq!(multiply(a, inverse(a)), 1);
        }
        assert_eq!([power(0, 0), power(0, 3), power(2, 8)], [1, 0, REDUCTION]);
    }
}
