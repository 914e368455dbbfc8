use super::reader::shape_of;
use super::text::without_names;
use super::{Change, assert_recorded, change};
use crate::snapshot::CpuNeeds;
use crate::snapshot::file::header::Header;
use crate::state::CpuState;
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[test]
fn the_format_has_the_recorded_shape_of_a_header_and_a_cpus_state() {
    assert_recorded::<Header>("header");
    assert_recorded::<CpuNeeds>("cpu");
    assert_recorded::<CpuState>("state");
}

/// Types before and after a change, each read and held against the other.
mod stored {
    use serde::Deserialize;

    macro_rules! structure {
        ($name:ident { $($field:ident: $type:ty),* }) => {
            #[derive(Deserialize)]
            #[allow(dead_code, reason = "only its shape is read")]
            pub(super) struct $name { $($field: $type),* }
        };
    }

    structure!(Before { a: u32, b: u32, list: Vec<Inner>, array: [u16; 4] });
    structure!(Added { a: u32, b: u32, list: Vec<Inner>, array: [u16; 4], c: Option<u8> });
    structure!(Removed { a: u32, list: Vec<Inner>, array: [u16; 4] });
    structure!(Reordered { b: u32, a: u32, list: Vec<Inner>, array: [u16; 4] });
    structure!(Renamed { first: u32, b: u32, list: Vec<Inner>, array: [u16; 4] });
    structure!(Moved { a: u32, list: Vec<Inner>, b: u32, array: [u16; 4] });
    structure!(Retyped { a: u64, b: u32, list: Vec<Inner>, array: [u16; 4] });
    structure!(Longer { a: u32, b: u32, list: Vec<Inner>, array: [u16; 5] });
    structure!(Deeper { a: u32, b: u32, list: Vec<OtherInner>, array: [u16; 4] });

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape is read")]
    pub(super) enum Inner {
        Nothing,
        Some { at: u64 },
        Bytes(kvm_bindings::kvm_regs),
    }

    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape is read")]
    pub(super) enum OtherInner {
        Nothing,
        Bytes(kvm_bindings::kvm_regs),
        Some { at: u64 },
    }

    /// As `Before`, by another name and through a check that nothing but one element passes.
    #[derive(Deserialize)]
    #[serde(try_from = "Before")]
    #[allow(dead_code, reason = "only its shape is read")]
    pub(super) struct Checked(Before);

    impl TryFrom<Before> for Checked {
        type Error = &'static str;

        fn try_from(before: Before) -> Result<Self, Self::Error> {
            match &before.list[..] {
                [Inner::Nothing] => Ok(Self(before)),
                _ => Err("anything else"),
            }
        }
    }

    /// Something behind what is checked.
    #[derive(Deserialize)]
    #[allow(dead_code, reason = "only its shape is read")]
    pub(super) struct Behind {
        pub first: Checked,
        pub last: Option<u8>,
    }
}

fn text<T: DeserializeOwned>() -> String {
    shape_of::<T>().text(7, "part")
}

#[test]
fn a_change_of_a_stored_type_is_noticed() {
    let before = text::<stored::Before>();
    let changes = [
        ("added", text::<stored::Added>()),
        ("removed", text::<stored::Removed>()),
        ("changed places", text::<stored::Reordered>()),
        ("moved", text::<stored::Moved>()),
        ("retyped", text::<stored::Retyped>()),
        ("a longer array", text::<stored::Longer>()),
        ("an enum in a list", text::<stored::Deeper>()),
    ];
    for (what, after) in changes {
        assert_eq!(change(&before, &after), Change::Shape, "{what}: {after}");
    }
    assert_eq!(change(&before, &text::<stored::Renamed>()), Change::Names);
    let raised = shape_of::<stored::Added>().text(8, "part");
    assert_eq!(change(&before, &raised), Change::Version);
}

#[test]
fn a_types_own_name_and_its_checks_are_no_part_of_its_shape() {
    assert_eq!(text::<stored::Before>(), text::<stored::Checked>());
    assert!(text::<stored::Behind>().contains("\n  last: option of u8\n"));
}

#[test]
fn a_shape_tells_fixed_bytes_variants_and_arrays() {
    let regs = size_of::<kvm_bindings::kvm_regs>();
    let expected = format!(
        "format version 7\npart: structure\n  a: u32\n  b: u32\n  list: list of one of\n    \
         0 Nothing: nothing\n    1 Some: structure\n      at: u64\n    2 Bytes: bytes[{regs}]\n  \
         array: 4 x u16\n"
    );
    assert_eq!(text::<stored::Before>(), expected);
}

#[test]
fn names_are_all_that_is_left_out_of_a_nameless_text() {
    let nameless = without_names("format version 7\npart: one of\n  0 A: nothing\n  1 B: u8\n");
    assert_eq!(nameless, "_: format version 7\n_: one of\n  0_: nothing\n  1_: u8\n");
}

#[derive(Deserialize)]
#[allow(dead_code, reason = "only its shape is read")]
struct Endless {
    next: Box<Endless>,
}

#[test]
#[should_panic(expected = "holds itself")]
fn a_type_that_holds_itself_is_no_endless_reading() {
    shape_of::<Endless>();
}
