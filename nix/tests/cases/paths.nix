# nix/lib/paths.nix: components, what is wrong with a path, the `*` of a rule.
{ test, functions, ... }:
let
  inherit (builtins) toJSON;
  inherit (functions) paths;

  expect =
    want: pattern: name:
    test "matchComponent ${toJSON pattern} ${toJSON name}" (paths.matchComponent pattern name) want;
  yes = expect true;
  no = expect false;
in
[
  (yes "a" "a")
  (no "a" "b")
  (no "a" "aa")
  (yes "*" "a")
  (yes "*" "")
  (yes "*" "a\nb")
  (yes "kde*" "kde")
  (yes "kde*" "kdeglobals")
  (no "kde*" "akde")
  (yes "*rc" "plasmarc")
  (no "*rc" "rcs")
  (no "a*a" "a")
  (yes "a*a" "aa")
  (yes "a*b*c" "axxbyyc")
  (no "a*b*c" "axxc")
  (yes "*b*b*" "abb")
  (no "*b*b*" "ab")
  (yes "a.b" "a.b")
  (no "a.b" "axb")
  (yes "[x]*" "[x]y")

  (test "components" (paths.components "//a///b/") [
    "a"
    "b"
  ])
  (test "components of /" (paths.components "/") [ ])
  (test "squeezeStars" (paths.squeezeStars "a***b**") "a*b*")
  (test "problem: empty" (paths.problem "") "the path is empty")
  (test "problem: relative" (paths.problem "a/b") "the path does not begin with a slash")
  (test "problem: dots" (paths.problem "/a/../b") ''the path contains a "." or ".." component'')
  (test "problem: dot" (paths.problem "/a/.") ''the path contains a "." or ".." component'')
  (test "problem: none" (paths.problem "/a/..b/.c") null)
]
