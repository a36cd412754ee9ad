package reset

import "sort"

// sortBy sorts a list by the paths, or other names, of its elements.
// (slices.SortFunc would be compiled anew for each type of element, which costs the
// static binary some twenty kilobytes a type.)
func sortBy[T any](list []T, compare func(a, b string) int, name func(*T) string) {
	sort.Slice(list, func(i, j int) bool { return compare(name(&list[i]), name(&list[j])) < 0 })
}
