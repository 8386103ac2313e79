//! A set of numbers as the places where it begins and ends, in a static B-tree.
//!
//! The *edges* of a set are sorted numbers: at the first one the set begins, at the second one it
//! ends, and so on. A number is in the set if it has an odd number of edges that are not above it.
//!
//! The edges are the leaves of the tree, in blocks of a cache line. Each layer above has the first
//! edges of the blocks below, but for the first block of each parent: a parent of `N` keys has
//! `N + 1` children. A look reads one block in each layer and counts the keys that are not above
//! the number, without a branch. So it takes as long for every number, whatever the set is like:
//! 200,000 edges of IPv4 are five blocks.
//!
//! As keys are sorted, the last keys of the groups of a block tell the group, and the keys of the
//! group tell the rest: of sixteen keys seven are compared. Each is a comparison and an addition of
//! its carry; to compare sixteen at once takes twice the instructions without a newer instruction
//! set, most of them to count what was found.

/// A number that can be an edge.
pub trait Number: Copy + Ord {
    /// The highest.
    const MAX: Self;
    /// The next one; `None` after the highest.
    fn successor(self) -> Option<Self>;
    /// `self < other`, as the borrow of a subtraction: that can be added up as it is, and comparing
    /// is made into vectors, which are slower for so few.
    fn is_below(self, other: Self) -> bool;
}

/// Each by the same methods of the standard library, which no trait of it has.
macro_rules! number {
    ($($integer:ty),+) => {$(
        impl Number for $integer {
            const MAX: Self = Self::MAX;

            fn successor(self) -> Option<Self> {
                self.checked_add(1)
            }

            #[inline]
            fn is_below(self, other: Self) -> bool {
                self.overflowing_sub(other).1
            }
        }
    )+};
}

number!(u32, u64, u128);

/// Numbers from `first` to `last`, which are in a set or not, but for networks inside of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network<K> {
    /// The first one.
    pub first: K,
    /// The last one.
    pub last: K,
    /// Whether they are in the set.
    pub is_in: bool,
}

/// A set of numbers. See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranges<K, const N: usize> {
    /// From the root to the leaves. No layer is empty.
    layers: Box<[Box<[Block<K, N>]>]>,
    edges: usize,
}

/// A cache line of keys, those that are not used being the highest number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(64))]
struct Block<K, const N: usize>([K; N]);

/// Keys of a block that are looked at together.
const GROUP_KEYS: usize = 4;

impl<K: Number, const N: usize> Block<K, N> {
    /// How many of the keys are not above `number`.
    #[inline]
    fn not_above(&self, number: K) -> usize {
        const { assert!(N > 0 && N.is_multiple_of(GROUP_KEYS), "a block is whole groups") };
        let (groups, _) = self.0.as_chunks::<GROUP_KEYS>();
        let group = groups[..groups.len() - 1]
            .iter()
            .map(|keys| usize::from(!number.is_below(keys[GROUP_KEYS - 1])))
            .sum::<usize>();
        let above = groups[group].iter().map(|key| usize::from(number.is_below(*key)));
        GROUP_KEYS * (group + 1) - above.sum::<usize>()
    }
}

impl<K: Number, const N: usize> Ranges<K, N> {
    /// The set with these edges, which are sorted and each there once.
    pub fn from_edges(edges: &[K]) -> Self {
        let block = |keys: &mut dyn Iterator<Item = K>| {
            let mut block = [K::MAX; N];
            block.iter_mut().zip(keys).for_each(|(place, key)| *place = key);
            Block(block)
        };
        let mut leaves: Vec<_> =
            edges.chunks(N).map(|keys| block(&mut keys.iter().copied())).collect();
        if leaves.is_empty() {
            leaves.push(block(&mut std::iter::empty()));
        }
        let mut firsts: Vec<K> = leaves.iter().map(|Block(keys)| keys[0]).collect();
        let mut layers = vec![leaves.into_boxed_slice()];
        while firsts.len() > 1 {
            let families = firsts.chunks(N + 1);
            let layer =
                families.map(|children| block(&mut children[1..].iter().copied())).collect();
            layers.push(layer);
            firsts = firsts.chunks(N + 1).map(|children| children[0]).collect();
        }
        layers.reverse();
        Self { layers: layers.into_boxed_slice(), edges: edges.len() }
    }

    /// Whether `number` is in the set.
    #[inline]
    pub fn contains(&self, number: K) -> bool {
        if self.is_empty() {
            return false;
        }
        let (mut block, mut not_above) = (0, 0);
        for layer in &self.layers {
            // The highest number counts keys that are not used; it belongs into the last block.
            block = not_above.min(layer.len() - 1);
            not_above = block * (N + 1) + layer[block].not_above(number);
        }
        // In the leaves, a block before this one has N edges and no children.
        let not_above = not_above - block;
        not_above.min(self.edges) % 2 == 1
    }

    /// The edges, sorted.
    pub fn edges(&self) -> impl Iterator<Item = K> {
        let leaves = self.layers.last().into_iter().flatten();
        leaves.flat_map(|Block(keys)| keys).copied().take(self.edges)
    }

    /// What the tree takes of memory.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(|layer| size_of_val(&**layer)).sum()
    }

    /// Whether no number is in the set.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.edges == 0
    }

    /// Whether every number is in the set, if zero is the lowest.
    pub fn is_all(&self) -> bool
    where
        K: Default,
    {
        self.edges().eq([K::default()])
    }
}

/// The edges of the set that these networks make. Two of them are the same, or one lies in the
/// other, or they have nothing in common.
///
/// # Errors
/// A network that comes twice, in the set and not in it.
pub fn edges_of<K: Number>(mut networks: Vec<Network<K>>) -> Result<Vec<K>, Network<K>> {
    // Each network comes before those in it.
    networks.sort_unstable_by(|a, b| a.first.cmp(&b.first).then(b.last.cmp(&a.last)));
    let is_same = |a: &Network<K>, b: &Network<K>| (a.first, a.last) == (b.first, b.last);
    let twice = networks.windows(2).find(|pair| is_same(&pair[0], &pair[1]) && pair[0] != pair[1]);
    if let Some(pair) = twice {
        return Err(pair[0]);
    }
    let mut sweep = Sweep { edges: Vec::new(), around: Vec::new() };
    for network in networks {
        sweep.leave_before(network.first);
        sweep.edge(network.first, network.is_in);
        sweep.around.push(network);
    }
    sweep.leave_all();
    Ok(sweep.into_edges())
}

/// Goes through the networks of a set and writes its edges down.
struct Sweep<K> {
    edges: Vec<(K, bool)>,
    /// Those that lie around the place of the sweep, the innermost last.
    around: Vec<Network<K>>,
}

impl<K: Number> Sweep<K> {
    /// From `place` on numbers are in the set, or are not.
    fn edge(&mut self, place: K, is_in: bool) {
        match self.edges.last_mut() {
            // A network begins where another one ended or began: the inner one comes later.
            Some((last, was_in)) if *last == place => *was_in = is_in,
            _ => self.edges.push((place, is_in)),
        }
    }

    /// Comes to `place`, where another network begins.
    fn leave_before(&mut self, place: K) {
        while self.around.last().is_some_and(|network| network.last < place) {
            self.leave();
        }
    }

    fn leave_all(&mut self) {
        while !self.around.is_empty() {
            self.leave();
        }
    }

    fn leave(&mut self) {
        let left = self.around.pop();
        let is_in = self.around.last().is_some_and(|network| network.is_in);
        if let Some(behind) = left.and_then(|network| network.last.successor()) {
            self.edge(behind, is_in);
        }
    }

    /// Without those at which nothing changes.
    fn into_edges(self) -> Vec<K> {
        let mut was_in = false;
        let is_change = |(_, is_in): &(K, bool)| std::mem::replace(&mut was_in, *is_in) != *is_in;
        self.edges.into_iter().filter(is_change).map(|(place, _)| place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every size around which a layer is filled or begun, and every number beside an edge.
    #[test]
    fn trees_of_all_sizes_count_right() {
        for edges in (0..700).chain([4_911, 4_912, 4_913, 4_914, 83_520, 83_521, 83_522]) {
            let numbers: Vec<u32> = (0..edges).map(|number| 10 + 3 * number).collect();
            let ranges = Ranges::<u32, 16>::from_edges(&numbers);
            assert!(ranges.edges().eq(numbers.iter().copied()), "{edges}");
            for (place, &edge) in numbers.iter().enumerate() {
                assert_eq!(ranges.contains(edge - 1), place % 2 == 1, "before {edge} of {edges}");
                assert_eq!(ranges.contains(edge), place % 2 == 0, "{edge} of {edges}");
            }
            assert!(!ranges.contains(0));
            assert_eq!(ranges.contains(u32::MAX), edges % 2 == 1, "{edges}");
        }
    }

    #[test]
    fn the_highest_number_can_be_an_edge() {
        for edges in 0..40 {
            let numbers: Vec<u128> = (0..edges).chain([u128::MAX]).collect();
            let ranges = Ranges::<u128, 4>::from_edges(&numbers);
            assert_eq!(ranges.contains(u128::MAX), edges % 2 == 0, "{edges}");
            assert_eq!(ranges.contains(u128::MAX - 1), edges % 2 == 1, "{edges}");
        }
    }
}
