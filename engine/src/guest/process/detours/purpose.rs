//! What detours are for, and what that takes. Never writes into a guest.

use crate::coverage::comparisons::{Logger, STUB_BYTES_MAX, data_bytes};
use crate::coverage::detours::{Detail, Emitted, Image, Left, Marker, Marks, Plan, emit};

/// What detours are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Blocks mark themselves, and what else the detail says.
    Marks(Detail),
    /// Comparisons log their operands. What an image has as blocks are its comparisons.
    Comparisons,
}

impl Purpose {
    /// The most bytes of data that the trampolines of an image have.
    pub(super) fn data_bytes(self, image: &Image<'_>, plan: &Plan) -> u64 {
        match self {
            Self::Marks(_) => (plan.blocks + plan.edges) as u64,
            Self::Comparisons => data_bytes(image.blocks.starts.len()),
        }
    }

    /// The most bytes that the trampolines take.
    pub(super) fn code_bytes_max(self, image: &Image<'_>, plan: &Plan) -> u64 {
        let probes = match self {
            Self::Marks(_) => 0,
            Self::Comparisons => {
                Logger::CODE_BYTES_MAX + STUB_BYTES_MAX * image.blocks.starts.len() as u64
            }
        };
        plan.code_bytes_max() + probes
    }

    /// How much marks tell.
    pub(super) fn detail(self) -> Detail {
        match self {
            Self::Marks(detail) => detail,
            Self::Comparisons => Detail::Blocks,
        }
    }

    /// Writes the trampolines of `plan` to stand at `code`, with their data at `data`.
    pub(super) fn emit(
        self,
        image: &Image<'_>,
        marks: &Marks,
        plan: &Plan,
        code: u64,
        data: u64,
    ) -> Emitted {
        match self {
            Self::Marks(_) => emit(image, plan, code, &mut Marker { marks, plan, map: data }),
            Self::Comparisons => emit_logging(image, plan, code, data),
        }
    }
}

/// The logger, and the trampolines behind it.
fn emit_logging(image: &Image<'_>, plan: &Plan, code: u64, data: u64) -> Emitted {
    let starts = &image.blocks.starts;
    let Some(mut logger) = Logger::new(code, data, starts.len(), image.base) else {
        let numbers = (image.first..).take(starts.len());
        let left = numbers.map(|number| (number, Left::OutOfReach)).collect();
        return Emitted { left, ..Emitted::default() };
    };
    let own = logger.code().to_vec();
    let emitted = emit(image, plan, code + own.len() as u64, &mut logger);
    Emitted { code: [own, emitted.code].concat(), ..emitted }
}
