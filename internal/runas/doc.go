// Package runas starts a program as another user of the machine. The program gets nothing that belongs to the caller, who is
// usually root, unless the caller requests it.
//
// The program starts as after a login: with the user's groups, home directory and shell, and a new environment. The program does
// not get:
//
//   - environment variables, except those to preserve (User.Environment);
//   - open descriptors, except standard input, output and error and those to keep (Isolation);
//   - the session and the terminal: the program has a session of its own and, at a terminal, a terminal of its own (Relay);
//   - capabilities, security bits and the session keyring;
//   - the working directory, unless the user can reach it by its path;
//   - the effect of set-user-ID programs and file capabilities, unless the caller allows it.
//
// The program inherits what a caller may choose for any program: the files that are standard input, output and error, resource
// limits, scheduling, the control group and ignored signals.
//
// The package knows nothing of service accounts. The tests that attack it are in package process, because they need a caller that
// supervises the program.
package runas
