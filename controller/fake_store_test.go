package controller

// Changed never tells anything unless a test does.
func (s *fakeStore) Changed() <-chan struct{} { return s.changed }
