//! How often a way of running may be of no use before it is given up. Never decides what use is.

/// Times in a row, after which a way is given up.
const IN_VAIN_MAX: u32 = 64;

/// How often in a row a way of running was of no use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    in_vain: u32,
}

impl Patience {
    /// It was of use.
    pub const fn renew(&mut self) {
        self.in_vain = 0;
    }

    /// It was of no use; whether to try it again.
    pub const fn lasts(&mut self) -> bool {
        self.in_vain += 1;
        self.in_vain < IN_VAIN_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_times_in_a_row_count() {
        let mut patience = Patience::default();
        for _ in 0..3 {
            assert!((1..IN_VAIN_MAX).all(|_| patience.lasts()));
            patience.renew();
        }
        assert!((1..IN_VAIN_MAX).all(|_| patience.lasts()));
        assert!(!patience.lasts());
    }
}
