//! Amounts as a person reads them.

/// Bytes as `85.0 MB` or `1.94 GB`, in powers of ten.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..100_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// A volume as `1524.3 ml`, and one below 1 ml with three digits that count: `0.0123 ml`.
pub fn ml(volume_ml: f64) -> String {
    format!("{} ml", digits(volume_ml, 1))
}

/// Distances of voxels as `8.00 x 3.60 x 3.60 mm`, and each below 1 mm with three digits that count: `0.0900 mm`.
pub fn spacing(spacing_mm: [f64; 3]) -> String {
    let [z, y, x] = spacing_mm.map(|mm| digits(mm, 2));
    format!("{z} x {y} x {x} mm")
}

/// A number with so many decimals; below 1 with as many as make three digits that count, and with a power of ten where that makes it
/// too long.
pub fn digits(value: f64, decimals: usize) -> String {
    let size = value.abs();
    if !(1e-4..1e9).contains(&size) && size != 0.0 && size.is_finite() {
        return format!("{value:.2e}");
    }
    let needed = if size > 0.0 && size < 1.0 { 2 - size.log10().floor() as i32 } else { 0 };
    format!("{value:.*}", decimals.max(usize::try_from(needed).unwrap_or(0)))
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
    fn amounts_show_three_digits_that_count_however_small_they_are() {
        for (value, decimals, text) in [
            (1524.26, 1, "1524.3"),
            (10.04, 1, "10.0"),
            (3.047, 1, "3.0"),
            (0.0234567, 1, "0.0235"),
            (0.000123456, 1, "0.000123"),
            (1.234e-7, 1, "1.23e-7"),
            (-0.5, 1, "-0.500"),
            (0.0, 1, "0.0"),
            (6.8e40, 1, "6.80e40"),
            (f64::NAN, 1, "NaN"),
            (133.2, 3, "133.200"),
        ] {
            assert_eq!(digits(value, decimals), text);
        }
        assert_eq!(ml(0.0234567), "0.0235 ml");
        assert_eq!(spacing([8.0, 0.09, 1.25]), "8.00 x 0.0900 x 1.25 mm");
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
