//! Amounts as a person reads them.

/// Bytes as `85.0 MB` or `1.94 GB`, in powers of ten.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..100_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// A count as `4,081,904`.
pub fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let (first, rest) = digits.split_at((digits.len() - 1) % 3 + 1);
    let mut text = first.to_owned();
    for group in rest.as_bytes().chunks(3) {
        text.push(',');
        text.extend(group.iter().map(|&digit| char::from(digit)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_megabytes_below_a_tenth_of_a_gigabyte() {
        for (amount, text) in [
            (0, "0.0 MB"),
            (85_000_000, "85.0 MB"),
            (99_999_999, "100.0 MB"),
            (100_000_000, "0.10 GB"),
            (1_940_000_000, "1.94 GB"),
            (u64::MAX, "18446744073.71 GB"),
        ] {
            assert_eq!(bytes(amount), text);
        }
    }

    #[test]
    fn counts_have_a_comma_before_every_three_digits() {
        for (count, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (100_000, "100,000"),
            (4_081_904, "4,081,904"),
            (12_345, "12,345"),
        ] {
            assert_eq!(thousands(count), text);
        }
    }
}
