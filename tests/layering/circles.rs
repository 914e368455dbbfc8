//! Circles: files that use each other, directly or through others.

use crate::edges::Edge;
use crate::modules::Modules;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

/// For each file that uses others the edges to them, by the file used.
type Graph<'e> = BTreeMap<&'e str, BTreeMap<&'e str, Vec<&'e Edge>>>;

/// Describes every circle by short cycles in it, numbered. Cutting one edge of each opens the circle:
/// before the next cycle is sought, the one just found is cut where it has the fewest edges.
pub fn circles(modules: &Modules, edges: &[Edge]) -> Vec<String> {
    let mut graph = Graph::new();
    for edge in edges.iter().filter(|edge| !edge.is_test) {
        let used = graph.entry(edge.user(modules)).or_default();
        used.entry(edge.used(modules)).or_default().push(edge);
    }
    let mut described = Vec::new();
    for circle in strongly_connected(&graph) {
        let mut message = format!("circle of {} files:", circle.len());
        for (number, cycle) in (1..).zip(cut_cycles(&mut graph, &circle)) {
            let steps: Vec<_> = cycle.iter().map(|edges| step(modules, edges)).collect();
            let _ = write!(message, "\n{number:>3}. {}", steps.join("\n     "));
        }
        described.push(message);
    }
    described
}

/// The first of the edges from one file to another, and how many more there are.
fn step(modules: &Modules, edges: &[&Edge]) -> String {
    let first = edges[0].describe(modules);
    match edges.len() - 1 {
        0 => first,
        more => format!("{first} (and {more} more)"),
    }
}

/// The sets of two files or more that all reach each other, each as large as it can be.
fn strongly_connected<'e>(graph: &Graph<'e>) -> Vec<BTreeSet<&'e str>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|&file| (file, reachable(graph, file))).collect();
    let mut found: Vec<BTreeSet<&str>> = Vec::new();
    for (&file, from_here) in &reached {
        let is_known = found.iter().any(|circle| circle.contains(file));
        if !is_known && from_here.contains(file) {
            let is_mutual = |other: &&&str| reached.get(**other).is_some_and(|r| r.contains(file));
            found.push(from_here.iter().filter(is_mutual).copied().collect());
        }
    }
    found
}

/// What `file` reaches in one step or more.
fn reachable<'e>(graph: &Graph<'e>, file: &'e str) -> BTreeSet<&'e str> {
    let mut seen = BTreeSet::new();
    let mut open = vec![file];
    while let Some(file) = open.pop() {
        let next = graph.get(file).into_iter().flat_map(BTreeMap::keys).copied();
        open.extend(next.filter(|&file| seen.insert(file)));
    }
    seen
}

/// Cycles in `circle`, the shortest first, each as the edges of its steps. Cuts each of them in
/// `graph`.
fn cut_cycles<'e>(graph: &mut Graph<'e>, circle: &BTreeSet<&'e str>) -> Vec<Vec<Vec<&'e Edge>>> {
    let mut found = Vec::new();
    loop {
        let shortest = circle.iter().filter_map(|&file| shortest_cycle(graph, circle, file));
        let Some(files) = shortest.min_by_key(Vec::len) else { return found };
        let steps = || files.iter().copied().zip(files.iter().copied().cycle().skip(1));
        found.push(steps().map(|(user, used)| graph[user][used].clone()).collect());
        if let Some((user, used)) = steps().min_by_key(|&(user, used)| graph[user][used].len()) {
            graph.entry(user).or_default().remove(used);
        }
    }
}

/// The files of a shortest cycle within `circle` that goes through `start`.
fn shortest_cycle<'e>(
    graph: &Graph<'e>,
    circle: &BTreeSet<&'e str>,
    start: &'e str,
) -> Option<Vec<&'e str>> {
    let mut ways = VecDeque::from([vec![start]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = ways.pop_front() {
        let here = way.last()?;
        for &next in graph.get(here).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                return Some(way);
            }
            if circle.contains(next) && seen.insert(next) {
                ways.push_back([way.as_slice(), &[next]].concat());
            }
        }
    }
    None
}
