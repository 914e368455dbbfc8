//! What a program did wrong, in words. Never returns to it.

use crate::sys;

/// A mistake of the program's.
pub enum Mistake {
    /// It frees, or resizes, a block that it has freed.
    DoubleFree { block: usize, size: usize },
    /// It frees, or resizes, what is no block.
    InvalidFree { block: usize },
    /// It has written past a block's end.
    Overflow { block: usize, size: usize },
    /// It has written before a block's start.
    Underflow { block: usize, size: usize },
    /// The heap is wrong itself.
    Own,
}

/// Says what is wrong on standard error, and ends the program by SIGABRT.
pub fn end_by(mistake: &Mistake) -> ! {
    let (what, block, size) = match *mistake {
        Mistake::DoubleFree { block, size } => ("double free of ", block, Some(size)),
        Mistake::InvalidFree { block } => ("free of what is no block, ", block, None),
        Mistake::Overflow { block, size } => ("write past the end of ", block, Some(size)),
        Mistake::Underflow { block, size } => ("write before the start of ", block, Some(size)),
        Mistake::Own => ("the heap itself has failed at ", 0, None),
    };
    let mut line = Line { bytes: [0; 128], len: 0 };
    line.push(b"dejavm heap guard: ");
    line.push(what.as_bytes());
    line.push(b"0x");
    line.push_number(block, 16);
    if let Some(size) = size {
        line.push(b", a block of ");
        line.push_number(size, 10);
        line.push(b" bytes");
    }
    line.push(b"\n");
    sys::print(line.bytes.get(..line.len).unwrap_or_default());
    sys::abort()
}

/// One line that is being made.
struct Line {
    bytes: [u8; 128],
    len: usize,
}

impl Line {
    /// Adds `text`, as far as there is room.
    fn push(&mut self, text: &[u8]) {
        for &byte in text {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = byte;
                self.len += 1;
            }
        }
    }

    fn push_number(&mut self, number: usize, base: usize) {
        let mut digits = [0; 20];
        let (mut rest, mut at) = (number, digits.len());
        while at > 0 {
            at -= 1;
            let digit = (rest % base) as u8;
            let digit = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
            if let Some(place) = digits.get_mut(at) {
                *place = digit;
            }
            rest /= base;
            if rest == 0 {
                break;
            }
        }
        self.push(digits.get(at..).unwrap_or_default());
    }
}
