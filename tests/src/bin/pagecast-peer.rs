//! A process that plays one role in a whole-system test; see `pagecast_tests::roles`.

fn main() {
    pagecast_tests::roles::main();
}
