//! Lists of processors, as `taskset` and the kernel write them: `2-7,10`.

/// The processors of a list, in its order; `None` if it is no list, or names one twice.
pub fn parse(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= CPUS_MAX {
            return None;
        }
        cpus.extend(first..=last);
    }
    let mut sorted = cpus.clone();
    sorted.sort_unstable();
    sorted.dedup();
    (sorted.len() == cpus.len()).then_some(cpus)
}

/// The kernel's largest (`CONFIG_NR_CPUS` on x86-64): keeps a mistyped range from filling memory.
const CPUS_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        assert_eq!(parse("0"), Some(vec![0]));
        assert_eq!(parse("2-4,10"), Some(vec![2, 3, 4, 10]));
        assert_eq!(parse(" 1 , 0 "), Some(vec![1, 0]));
        for wrong in ["", "a", "3-1", "1,1", "0-2,2", "1-", "-1", "0-99999", "1;2"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
