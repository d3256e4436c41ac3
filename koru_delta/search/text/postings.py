from __future__ import annotations
import math
import numpy as np
class Postings:
    def __init__(self): self.docs=[]
    @property
    def slots(self): return len(self.docs)
    def append(self, docs): self.docs.extend(docs)
    def dump(self): return {}
    @classmethod
    def restored(cls, a): raise KeyError("x")
    def top(self, query, k, passing):
        mask=passing.mask
        vis=np.flatnonzero(mask).tolist(); N=len(vis)
        if not N: return np.zeros(0,dtype=np.int64), np.zeros(0), 0
        avg=sum(len(self.docs[s]) for s in vis)/N
        sc={}
        for w in query.words:
            df=sum(w in self.docs[s] for s in vis)
            idf=math.log(1+(N-df+.5)/(df+.5))
            for s in vis:
                tf=self.docs[s].count(w)
                if tf: sc[s]=sc.get(s,0)+idf*tf/(tf+1.2*(.25+.75*len(self.docs[s])/avg))
        s=np.array(list(sc),dtype=np.int64); v=np.array([sc[x] for x in sc],dtype=np.float64)
        return s, v, len(s)
