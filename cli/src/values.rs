//! The values of arguments: sizes, times, addresses, variables, file mappings.
//!
//! Only text to value; never looks at a file or a program.

use dejavm_engine::linux::FileMapping;
use std::ffi::{OsStr, OsString};
use std::ops::RangeInclusive;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::time::Duration;

/// Memory that a guest can have, in bytes.
const RAM: RangeInclusive<u64> = 1 << 16..=1 << 40;

/// Why a value makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not a size.
    #[error("write a size as a number with K, M, G or nothing after it, such as 256M")]
    Size,
    /// Not a size that a guest's memory can have.
    #[error("write the memory's size as 64K to 1T, such as 256M")]
    Ram,
    /// Not a time.
    #[error("write a time in milliseconds, or with a unit: 500, 500ms, 2s")]
    Time,
    /// Not an address.
    #[error("write an address in hexadecimal with 0x, or in decimal")]
    Address,
    /// Not a point in a program.
    #[error(
        "write a function's name, an address (0x401136), or +OFFSET into the program (+0x1136)"
    )]
    Point,
    /// Not a variable.
    #[error("write a variable as NAME=VALUE")]
    Variable,
    /// Not a mapping.
    #[error("write HOST or HOST:GUEST; a colon inside of a path is written \\:")]
    Mapping,
}

/// A size in bytes.
pub fn size(text: &str) -> Result<u64, ValueError> {
    let lower = text.to_ascii_lowercase();
    let short = lower.strip_suffix("ib").or(lower.strip_suffix('b')).unwrap_or(&lower);
    let (digits, shift) = match short.char_indices().next_back() {
        Some((at, 'k')) => (&short[..at], 10),
        Some((at, 'm')) => (&short[..at], 20),
        Some((at, 'g')) => (&short[..at], 30),
        Some((at, 't')) => (&short[..at], 40),
        _ => (short, 0),
    };
    number(digits).and_then(|n| n.checked_mul(1 << shift)).ok_or(ValueError::Size)
}

/// A size in bytes; in MiB without a unit.
pub fn mebibytes(text: &str) -> Result<u64, ValueError> {
    match number(text) {
        Some(mib) => mib.checked_mul(1 << 20).ok_or(ValueError::Size),
        None => size(text),
    }
}

/// The size of a guest's memory.
pub fn ram(text: &str) -> Result<u64, ValueError> {
    size(text).ok().filter(|bytes| RAM.contains(bytes)).ok_or(ValueError::Ram)
}

/// A time; milliseconds unless it has a unit.
pub fn time(text: &str) -> Result<Duration, ValueError> {
    let (digits, unit_ms) = if let Some(digits) = text.strip_suffix("ms") {
        (digits, 1)
    } else if let Some(digits) = text.strip_suffix('s') {
        (digits, 1000)
    } else {
        (text, 1)
    };
    let ms = number(digits).and_then(|n| n.checked_mul(unit_ms)).ok_or(ValueError::Time)?;
    Ok(Duration::from_millis(ms))
}

/// An address.
pub fn address(text: &str) -> Result<u64, ValueError> {
    match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        // `from_str_radix` would take a sign.
        Some(hex) if hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
            u64::from_str_radix(hex, 16).map_err(|_| ValueError::Address)
        }
        Some(_) => Err(ValueError::Address),
        None => number(text).ok_or(ValueError::Address),
    }
}

fn number(digits: &str) -> Option<u64> {
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Where a program is to be stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Point {
    /// At a function.
    Symbol(String),
    /// At an address of the guest.
    Address(u64),
    /// At an address as `objdump` shows it for the program.
    Offset(u64),
}

/// A point in a program.
pub fn point(text: &str) -> Result<Point, ValueError> {
    match text.as_bytes() {
        [] => Err(ValueError::Point),
        [b'+', ..] => address(&text[1..]).map(Point::Offset).map_err(|_| ValueError::Point),
        [b'0'..=b'9', ..] => address(text).map(Point::Address).map_err(|_| ValueError::Point),
        _ => Ok(Point::Symbol(text.to_owned())),
    }
}

/// An environment variable.
pub fn variable(text: OsString) -> Result<OsString, ValueError> {
    let equals = text.as_bytes().iter().position(|&b| b == b'=');
    if equals.is_some_and(|at| at > 0) { Ok(text) } else { Err(ValueError::Variable) }
}

/// A file for the guest.
pub fn mapping(text: OsString) -> Result<FileMapping, ValueError> {
    let mut parts = vec![Vec::new()];
    let mut bytes = text.as_bytes().iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'\\' if bytes.next_if_eq(&b':').is_some() => b':',
            b':' => {
                parts.push(Vec::new());
                continue;
            }
            other => other,
        };
        if let Some(part) = parts.last_mut() {
            part.push(byte);
        }
    }
    let path = |bytes: Vec<u8>| OsString::from_vec(bytes).into();
    let mut parts = parts.into_iter();
    match (parts.next(), parts.next(), parts.next()) {
        (Some(host), None, _) if !host.is_empty() => {
            Ok(FileMapping { guest: path(host.clone()), host: path(host) })
        }
        (Some(host), Some(guest), None) if !host.is_empty() && !guest.is_empty() => {
            Ok(FileMapping { host: path(host), guest: path(guest) })
        }
        _ => Err(ValueError::Mapping),
    }
}

/// `argument` with every `@@` replaced by `path`; `None` when there is none.
pub fn replace_input(argument: &OsStr, path: &OsStr) -> Option<OsString> {
    let mut rest = argument.as_bytes();
    let mut replaced = Vec::new();
    let mut found = false;
    while let Some(at) = rest.windows(2).position(|pair| pair == b"@@") {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(path.as_bytes());
        rest = &rest[at + 2..];
        found = true;
    }
    replaced.extend_from_slice(rest);
    found.then(|| OsString::from_vec(replaced))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        let sizes = ["0", "4096", "64k", "256M", "2GiB", "1mb", "16777215T"];
        let bytes = [0, 4096, 64 << 10, 256 << 20, 2 << 30, 1 << 20, 16_777_215 << 40];
        assert_eq!(sizes.map(|text| size(text).unwrap()), bytes);
        for text in ["", "M", "-1", "+1", "1.5G", "1X", "0x10", "16777216T", "99999999999999999999"]
        {
            assert_eq!(size(text), Err(ValueError::Size), "{text:?}");
        }
    }

    #[test]
    fn memory_has_a_sensible_size() {
        assert_eq!((ram("64K"), ram("1T")), (Ok(1 << 16), Ok(1 << 40)));
        for text in ["0", "256", "2T", "lots"] {
            assert_eq!(ram(text), Err(ValueError::Ram), "{text}");
        }
    }

    #[test]
    fn times_are_in_milliseconds_without_a_unit() {
        assert_eq!(
            ["500", "20ms", "2s", "0"].map(|t| time(t).unwrap().as_millis()),
            [500, 20, 2000, 0]
        );
        for text in ["", "s", "ms", "-5", "1m", "1.5s", "18446744073709551615s"] {
            assert_eq!(time(text), Err(ValueError::Time), "{text:?}");
        }
    }

    #[test]
    fn points_are_names_addresses_or_offsets() {
        assert_eq!(point("xmlReadFile"), Ok(Point::Symbol("xmlReadFile".to_owned())));
        assert_eq!(point("my::parse"), Ok(Point::Symbol("my::parse".to_owned())));
        assert_eq!(point("0x401136"), Ok(Point::Address(0x40_1136)));
        assert_eq!(point("+0x1136"), Ok(Point::Offset(0x1136)));
        for text in ["", "+", "+main", "0xzz", "0x+1", "12ab", "0x11112222333344445"] {
            assert_eq!(point(text), Err(ValueError::Point), "{text:?}");
        }
    }

    #[test]
    fn a_variable_has_a_name() {
        assert!(variable("A=".into()).is_ok() && variable("A=b=c".into()).is_ok());
        for text in ["", "A", "=b"] {
            assert_eq!(variable(text.into()), Err(ValueError::Variable), "{text:?}");
        }
    }

    #[test]
    fn a_mapping_keeps_the_path_unless_asked_otherwise() {
        let of = |text: &str| {
            let mapping = mapping(text.into()).unwrap();
            (mapping.host.into_os_string(), mapping.guest.into_os_string())
        };
        assert_eq!(of("a/b"), ("a/b".into(), "a/b".into()));
        assert_eq!(of("a:/etc/b"), ("a".into(), "/etc/b".into()));
        assert_eq!(of(r"id\:1:x"), ("id:1".into(), "x".into()));
        assert_eq!(of(r"a\b"), (r"a\b".into(), r"a\b".into()));
        for text in ["", ":", "a:", ":b", "a:b:c"] {
            assert_eq!(mapping(text.into()), Err(ValueError::Mapping), "{text:?}");
        }
    }

    #[test]
    fn the_input_is_replaced_wherever_it_stands() {
        let replaced = |text: &str| replace_input(OsStr::new(text), OsStr::new("/i"));
        assert_eq!(replaced("@@"), Some("/i".into()));
        assert_eq!(replaced("--file=@@,x@@"), Some("--file=/i,x/i".into()));
        assert_eq!(replaced("@@@"), Some("/i@".into()));
        assert_eq!(replaced("a@b"), None);
    }
}
