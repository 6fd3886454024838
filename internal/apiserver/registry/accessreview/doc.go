// Package accessreview answers who may do what: subject-, self- and local subject access reviews.
//
// It asks the authorizer that decides requests and knows nothing of roles.
package accessreview
