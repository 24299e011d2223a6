//! Bad input of every kind is refused: exit code 1 and one line that names the place, what was expected, what was found and what to do;
//! no panic, and nothing is written. The first row of each table goes through the binary, all rows through what it calls.

mod challenge;
mod program;
mod refusal;
mod scanner;
