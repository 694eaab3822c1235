"""Tensor-train plus sparse compression of weight matrices: Ŵ = [base of few bits +] low rank or tensor train + sparse.

Sources: Saten, arXiv 2505.14871; TT-SVD, Oseledets, SIAM J. Sci. Comput. 33 (2011) 2295. Needs torch.
"""
